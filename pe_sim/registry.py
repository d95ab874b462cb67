"""What can be added from outside: takes built-in entries and a group of entry points, gives one registry by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pe_sim.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_E = TypeVar("_E")


@cache
def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points that installed packages have in a group."""
    from importlib.metadata import entry_points  # takes its time, and reads a file of every package

    return tuple(entry_points(group=group))


class Registry(MutableMapping[str, _E]):
    """Built-in entries by name, and behind them those of installed packages.

    Packages are looked at when a name is asked for that is not built in, or all names are; imported is what is taken.

    Args:
        group: of the entry points.
        built_in: the entries that need no package.
        has: what an entry must have; a function is called, and one with a name has that of its entry point.
        take: the entry, of what the entry point gives; None: that itself.
        prefix: of the names in the group.
    """

    def __init__(
        self,
        group: str,
        built_in: Mapping[str, _E],
        has: tuple[str, ...] = ("__call__",),
        take: Callable[[Any], _E] | None = None,
        prefix: str = "",
    ) -> None:
        self.built_in = dict(built_in)
        self._group, self._has, self._take, self._prefix = group, has, take, prefix

    def _outside(self) -> dict[str, EntryPoint]:
        """Entry points by the name that users type.

        Raises:
            InputError: two of one name, or one of a name that is built in.
        """
        found: dict[str, EntryPoint] = {}
        for point in installed(self._group):
            if not point.name.startswith(self._prefix):
                continue
            name = point.name.removeprefix(self._prefix)
            if name in self.built_in or name in found:
                other = _origin(found[name]) if name in found else "pe-sim itself"
                hint = "rename the entry point, or uninstall its package"
                raise InputError(f"{name!r} is there already, from {other}", source=_origin(point), hint=hint)
            found[name] = point
        return found

    def _load(self, name: str, point: EntryPoint) -> _E:
        try:
            given = point.load()
            entry: _E = self._take(given) if self._take else given
            for part in self._has:
                getattr(entry, part)
            if "name" in self._has and entry.name != name:  # type: ignore[attr-defined]  # it has one
                raise ValueError(f"it calls itself {entry.name!r}")  # type: ignore[attr-defined]
        except (Exception, SystemExit) as error:
            raise InputError(
                f"it cannot be used: {type(error).__name__}: {error}",
                source=_origin(point),
                given=point.value,
                hint="mend the package, or uninstall it",
            ) from error
        return entry

    def outside(self) -> tuple[_E, ...]:
        """The entries of installed packages, loaded."""
        return tuple(self._load(name, point) for name, point in self._outside().items())

    def __getitem__(self, name: str) -> _E:
        if name in self.built_in:
            return self.built_in[name]
        return self._load(name, self._outside()[name])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.built_in or name in self._outside())

    def __iter__(self) -> Iterator[str]:
        yield from self.built_in
        yield from self._outside()  # not before somebody wants them

    def __len__(self) -> int:
        return len(self.built_in) + len(self._outside())

    def __setitem__(self, name: str, entry: _E) -> None:
        self.built_in[name] = entry

    def __delitem__(self, name: str) -> None:
        del self.built_in[name]


def _origin(point: EntryPoint) -> str:
    package = point.dist.name if point.dist else "that is not known"
    return f"package {package}: entry point {point.name} of {point.group}"
