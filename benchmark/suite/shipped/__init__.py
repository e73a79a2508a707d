"""The shipped suites, as YAML files."""
