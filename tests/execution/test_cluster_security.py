"""Who may give work to the workers of a run."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import dask
import pytest
from distributed import Client
from distributed.security import Security

from advser.errors import InputError
from advser.execution.cluster import Progress, Workers, _client, run_jobs
from advser.stages.job import Job
from advser.store.artefacts import Store


def answers(port: int, page: str) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5)
    except urllib.error.HTTPError:
        return False
    return True


def test_only_this_process_may_give_work_to_the_local_workers() -> None:
    with _client(Workers(count=1), 1) as (client, _):
        info = client.scheduler_info()
        addresses = [client.scheduler.address, *info["workers"]]
        assert all(address.startswith("tls://") for address in addresses)
        stranger = Security.temporary()
        for address in addresses:
            with pytest.raises(OSError, match=r"."):
                Client(address, security=stranger, timeout=2)
            with pytest.raises(OSError, match=r"."):
                Client(address.replace("tls", "tcp"), timeout=2)
        ports = [
            info["services"]["dashboard"],
            *(worker["services"]["dashboard"] for worker in info["workers"].values()),
        ]
        assert not any(answers(port, page) for port in ports for page in ("/", "/info/main/workers.html", "/metrics"))
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1"])
def test_a_scheduler_without_the_required_key_is_refused_in_one_line(address: str, tmp_path: Path) -> None:
    class Quiet(Progress):
        pass

    job = Job.__new__(Job)
    with dask.config.set({"distributed.comm.require-encryption": True}), pytest.raises(InputError) as caught:
        run_jobs([job], 0, Store(tmp_path), Workers(scheduler=address), Quiet())
    assert f"--scheduler {address}: cannot be reached" in str(caught.value)
    assert "\n" not in str(caught.value)
