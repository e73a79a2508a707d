"""Results folders: tables, columns, selection."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advser.results.folder import Results

__all__ = ["Results"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'advser.results' has no attribute '{name}'")
    from advser.results import folder

    return getattr(folder, name)
