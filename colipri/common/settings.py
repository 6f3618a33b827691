"""Typed settings: frozen dataclasses that read and write plain JSON data and know their ranges.

A subclass declares its entries once, each with its meaning, unit and allowed values:

    @dataclass(frozen=True, kw_only=True)
    class NoiseSettings(Settings):
        probability: float = entry("share of the samples with noise", default=0.1, low=0, high=1)
        std: float = entry("standard deviation", unit="HU", default=20.0, low=0)

Values are checked whenever an object is made: from a file (:meth:`Settings.from_dict`), in code, or
by ``dataclasses.replace``. A wrong value or an unknown name is one line that says which entry, what
it must be, and for a wrong name which known one is nearest. What was read is written back as it was
(same entries, same order), so that a file that people edit does not change under their hands.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Union

from colipri.common.errors import ColipriError

if TYPE_CHECKING:
    from typing import Self

_REQUIRED: Any = object()
_COUNT_WORDS = {2: "two ", 3: "three "}


class SettingsError(ColipriError):
    """A wrong entry.

    Args:
        path: of the entry, for example "training.learning_rate".
        problem: what is wrong, to be read after the path.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} {problem}" if path else problem)
        self.path = path
        self.problem = problem

    def inside(self, outer: str) -> SettingsError:
        """Return the same error, seen from the settings that hold these under the name
        ``outer``.
        """
        return SettingsError(f"{outer}.{self.path}" if self.path else outer, self.problem)


@dataclass(frozen=True)
class Entry:
    """What is known of one entry beside its type and default.

    Attributes:
        meaning: one line for people.
        unit: of the value; "" where it has none.
        low, high: inclusive limits of a number, or of each number of a list or mapping.
        above, below: exclusive limits.
        choices: allowed texts.
        length: number of elements of a list.
        key: its name in JSON, where that differs from the attribute.
        always: written even where it has its default, so that people find it in the file.
        stored: False for attributes that are not part of the file.
    """

    meaning: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    length: int | None = None
    key: str = ""
    always: bool = False
    stored: bool = True

    def limits(self) -> str:
        """Return the range in words: "from 0 to below 1"; "" where there is none."""
        parts = []
        if self.low is not None:
            parts.append(f"from {self.low:g}" if self._has_upper() else f"at least {self.low:g}")
        if self.above is not None:
            parts.append(f"above {self.above:g}")
        if self.high is not None:
            parts.append(f"to {self.high:g}" if self.low is not None else f"at most {self.high:g}")
        if self.below is not None:
            parts.append(
                f"to below {self.below:g}" if self.low is not None else f"below {self.below:g}"
            )
        return (" and " if self.low is None else " ").join(parts)

    def _has_upper(self) -> bool:
        return self.high is not None or self.below is not None

    def admits(self, value: float) -> bool:
        """True if the number lies within the limits."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def entry(meaning: str, *, default: Any = _REQUIRED, factory: Any = None, **known: Any) -> Any:
    """Declare an entry of a :class:`Settings` class.

    Args:
        meaning: one line for people.
        default: of the entry; without one (and without ``factory``) it is required.
        factory: makes the default, for lists, mappings and settings within settings.
        known: the other attributes of :class:`Entry`.
    """
    metadata = {"entry": Entry(meaning, **known)}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    if default is _REQUIRED:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all typed settings; see the module.

    Attributes:
        read_entries: names in the order of the file that this was read from; None if made in code.
        notes: entries whose names begin with "_" (people's comments), and, in an ``OPEN`` class,
            those that are known to somebody else only; both are written back.
    """

    OPEN: ClassVar[bool] = False

    read_entries: tuple[str, ...] | None = field(default=None, repr=False, compare=False)
    notes: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        hints = type_hints(type(self))
        for name, about in entries(type(self)).items():
            value = getattr(self, name)
            checked = checked_value(value, hints[name], about, about.key or name)
            if checked is not value:
                object.__setattr__(self, name, checked)
        self.check()

    def check(self) -> None:
        """Override to check entries against each other.

        Raises:
            SettingsError: they contradict each other.
        """

    @classmethod
    def from_dict(cls, content: Any, where: str = "") -> Self:
        """Read plain data.

        Args:
            content: a mapping of JSON values.
            where: begins the error message, for example the name of a file.

        Raises:
            ColipriError: an entry is missing, unknown, of a wrong type or out of range.
        """
        try:
            return cls._read(content)
        except SettingsError as error:
            if not where:
                raise
            separator = ": " if error.path else " "  # without a path, ``where`` is the subject
            raise ColipriError(f"{where}{separator}{error}") from None

    @classmethod
    def _read(cls, content: Any) -> Self:
        if not isinstance(content, Mapping):
            raise SettingsError("", f"must be an object, not {content!r:.60}")
        by_key = {about.key or name: name for name, about in entries(cls).items() if about.stored}
        hints = type_hints(cls)
        given: dict[str, Any] = {}
        notes: dict[str, Any] = {}
        for key, value in content.items():
            if key in by_key:
                try:
                    given[by_key[key]] = _read_value(hints[by_key[key]], value)
                except SettingsError as error:
                    raise error.inside(key) from None
            elif key.startswith("_") or (cls.OPEN and not nearest(key, by_key, 0.85)):
                notes[key] = value
            else:
                raise SettingsError("", unknown_entry(key, by_key))
        for missing in fields_without_default(cls):
            if missing not in given:
                key = entries(cls)[missing].key or missing
                raise SettingsError("", f"lacks '{key}' ({entries(cls)[missing].meaning})")
        return cls(**given, read_entries=tuple(content), notes=notes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, as it was read.

        Of settings made in code: required entries, those that differ from their defaults, and those
        that are always written.
        """
        by_key = {
            about.key or name: name for name, about in entries(type(self)).items() if about.stored
        }
        defaults = default_values(type(self))
        keys = [key for key in self.read_entries or () if key in by_key or key in self.notes]
        for key, name in by_key.items():
            shown = self.read_entries is None and (
                entries(type(self))[name].always or name not in defaults
            )
            if key not in keys and (shown or getattr(self, name) != defaults.get(name, MISSING)):
                keys.append(key)
        keys += [key for key in self.notes if key not in keys]
        return {
            key: _plain(getattr(self, by_key[key]) if key in by_key else self.notes[key])
            for key in keys
        }


def type_hints(cls: type[Any]) -> dict[str, Any]:
    """Return the types of the entries by attribute name."""
    return _known(cls)[0]


def entries(cls: type[Any]) -> dict[str, Entry]:
    """Return what is known of each entry, by attribute name, in the order of declaration."""
    return _known(cls)[1]


def default_values(cls: type[Any]) -> dict[str, Any]:
    """Return the defaults by attribute name, of the entries that have one."""
    return _known(cls)[2]


_KNOWN: dict[type[Any], tuple[dict[str, Any], dict[str, Entry], dict[str, Any]]] = {}


def _known(cls: type[Any]) -> tuple[dict[str, Any], dict[str, Entry], dict[str, Any]]:
    """Types, entries and defaults of a class, found once."""
    if cls not in _KNOWN:
        items = dataclasses.fields(cls)
        about = {i.name: i.metadata["entry"] for i in items if "entry" in i.metadata}
        defaults = {i.name: i.default for i in items if i.default is not MISSING}
        for item in items:
            if item.default_factory is not MISSING:
                defaults[item.name] = item.default_factory()
        _KNOWN[cls] = (typing.get_type_hints(cls), about, defaults)
    return _KNOWN[cls]


def fields_without_default(cls: type[Settings]) -> list[str]:
    """Return the attribute names of the required entries that are stored."""
    known = default_values(cls)
    return [name for name, about in entries(cls).items() if about.stored and name not in known]


def nearest(name: str, known: Collection[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like ``name``, or None if none is.

    Args:
        name: As typed.
        known: Names that exist.
        cutoff: Least similarity, from 0 to 1 (difflib's ratio).
    """
    found = difflib.get_close_matches(name, list(known), 1, cutoff)
    return found[0] if found else None


def unknown_entry(name: str, known: Collection[str]) -> str:
    """Say that ``name`` is unknown, with the nearest known name, or else all of them."""
    close = nearest(name, known)
    if close is not None:
        return f"has no entry '{name}'; did you mean '{close}'?"
    return f"has no entry '{name}'; known: {', '.join(known)}"


def settings_class(hint: Any) -> type[Settings] | None:
    """Return the settings class of a type hint such as ``TrainingPlan`` or ``MixingSettings |
    None``.
    """
    for kind in _alternatives(hint):
        if isinstance(kind, type) and issubclass(kind, Settings):
            return kind
    return None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _read_value(hint: Any, value: Any) -> Any:
    """Turn objects into settings, at any depth; everything else is checked later."""
    kind = settings_class(hint)
    if kind is not None and not (value is None and type(None) in _alternatives(hint)):
        return kind._read(value)
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):
        inner = typing.get_args(hint)[1]
        result = {}
        for key, element in value.items():
            try:
                result[key] = _read_value(inner, element)
            except SettingsError as error:
                raise error.inside(key) from None
        return result
    if typing.get_origin(hint) is list and isinstance(value, list):
        inner = typing.get_args(hint)[0]
        elements = []
        for number, element in enumerate(value):
            try:
                elements.append(_read_value(inner, element))
            except SettingsError as error:
                raise error.inside(str(number)) from None
        return elements
    return value


def checked_value(value: Any, hint: Any, about: Entry, key: str) -> Any:
    """Return the value, with whole numbers as int where the type asks for it.

    Args:
        value: of an entry.
        hint: its type.
        about: its range.
        key: its name, for the message.

    Raises:
        SettingsError: the value does not fit.
    """
    for kind in _alternatives(hint):
        fits, result = _fits(value, kind, about)
        if fits:
            return result
        if typing.get_origin(kind) is dict and isinstance(value, Mapping):
            for name, element in value.items():  # name the one that is wrong
                checked_value(element, typing.get_args(kind)[1], about, f"{key}.{name}")
    raise SettingsError(key, f"must be {expected(hint, about)}, not {value!r:.60}")


def _fits(value: Any, kind: Any, about: Entry) -> tuple[bool, Any]:
    origin = typing.get_origin(kind)
    if kind is Any:
        return True, value
    if kind is type(None):
        return value is None, value
    if kind is bool:
        return isinstance(value, bool), value
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False, value
        if not math.isfinite(value) or not about.admits(value):
            return False, value
        if kind is float:
            return True, value
        return value == int(value), int(value)
    if kind is str:
        return isinstance(value, str) and (not about.choices or value in about.choices), value
    if origin is list:
        if not isinstance(value, list | tuple):
            return False, value
        pairs = [_fits(element, typing.get_args(kind)[0], about) for element in value]
        right = all(fits for fits, _ in pairs) and about.length in (None, len(value))
        result = [element for _, element in pairs]
        unchanged = isinstance(value, list) and all(
            a is b for a, b in zip(result, value, strict=True)
        )
        return right, value if unchanged else result
    if origin is dict:
        if not isinstance(value, Mapping):
            return False, value
        element = typing.get_args(kind)[1]
        return all(_fits(item, element, about)[0] for item in value.values()), value
    return isinstance(value, kind), value


def expected(hint: Any, about: Entry) -> str:
    """Return what an entry must be, in words: "three whole numbers above 0", "one of none, mlp,
    full".
    """
    parts = []
    for kind in _alternatives(hint):
        if kind is type(None):
            parts.append("null")
        elif typing.get_origin(kind) is list:
            inner = typing.get_args(kind)[0]
            number = _COUNT_WORDS.get(about.length or 0, "") or "a list of "
            plural = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
            words = f"{number}{plural.get(inner, 'objects')}"
            parts.append(f"{words} {about.limits()}".strip())
        elif typing.get_origin(kind) is dict:
            inner = typing.get_args(kind)[1]
            numbers = f" with numbers {about.limits()}".rstrip() if inner in (int, float) else ""
            parts.append(f"an object{numbers}")
        elif kind in (int, float):
            word = "a whole number" if kind is int else "a number"
            parts.append(f"{word} {about.limits()}".strip())
        elif kind is bool:
            parts.append("true or false")
        elif kind is str:
            parts.append(f"one of {', '.join(about.choices)}" if about.choices else "a text")
        else:
            parts.append("an object")
    return " or ".join(dict.fromkeys(parts))


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(element) for element in value]
    return value
