"""One job: in a worker, in a process of its own, in time."""
