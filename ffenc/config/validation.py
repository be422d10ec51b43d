"""The base class of validated settings; errors name the key, the value found and what is accepted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct, StructMeta, ValidationError, convert
from msgspec.structs import FieldInfo, asdict, force_setattr
from msgspec.structs import fields as struct_fields

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

Value = TypeVar("Value")
AnySettings = TypeVar("AnySettings", bound="Settings")


def accepts(text: str, *, ge: float | None = None, le: float | None = None) -> Meta:
    """Return the constraints of a field: what it accepts in words, for errors, and its range."""
    return Meta(description=text, ge=ge, le=le)


# Types of fields. JSON and YAML have infinity and NaN, which no setting accepts.
Flag = Annotated[bool, accepts("true or false")]
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]


class SettingError(ConfigError):
    """A :class:`ConfigError` about a key.

    Attributes:
        key: path of the key, outermost first; ``where`` is the same path with dots.
    """

    def __init__(self, key: tuple[str, ...], found: str, expected: str = "") -> None:
        super().__init__(found, expected=expected, where=".".join(key))
        self.key = key

    @classmethod
    def of(cls, error: ConfigError, *key: str) -> Self:
        """Return an error as an error about a key; a key that the error itself names is appended or kept.

        Args:
            error: an error about the value of the key.
            key: path of the key, outermost first.
        """
        if isinstance(error, SettingError):
            return cls((*key, *error.key), error.problem.found, error.problem.expected)
        if error.where in key[-1:]:
            return cls(key, error.problem.found, error.problem.expected)
        return cls(key, str(error))


class _Checking(StructMeta):
    """Validates values before a settings object is made; msgspec's own constructor does not check types."""

    if not TYPE_CHECKING:  # type checkers use the constructor that msgspec derives from the fields

        def __call__(cls, /, **values: Any) -> Any:
            fields = _fields(cls)
            read = cls._prepared(values)
            for name, field in fields.items():
                if name in read:
                    read[name] = field.read(name, read[name])
                elif field.default is NODEFAULT:
                    raise SettingError((name,), "is missing", expected=field.expected)
            for name in read:
                if name not in fields:
                    raise SettingError((name,), f"unknown key{accepted(name, fields)}")
            made = _made(cls, read, frozenset(values))
            try:
                made._check()
            except ConfigError as error:
                raise SettingError.of(error) from None
            return made


class Settings(Struct, frozen=True, kw_only=True, dict=True, metaclass=_Checking):
    """Base of frozen, strictly typed settings; unknown keys are refused with the nearest accepted one.

    The type of a field determines what it accepts, and describes it in words with :func:`accepts`.
    """

    @classmethod
    def _prepared(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert other accepted spellings to the values of the fields."""
        return dict(values)

    def _check(self) -> None:
        """Check what the fields' types cannot express, and set fields that depend on others.

        Raises:
            ConfigError: a value that is not accepted.
        """

    def _checked(self, name: str, check: Callable[[Any], Value]) -> Value:
        """Return the result of a function for a field; its errors name the field."""
        try:
            return check(getattr(self, name))
        except ConfigError as error:
            raise SettingError.of(error, name) from None

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that were passed; all others have their defaults."""
        given: frozenset[str] = self.__dict__["_given"]
        return given

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed; fields that depend on others are set again."""
        return type(self)(**{name: getattr(self, name) for name in self.given} | changes)

    __replace__ = replace

    def as_given(self, given: frozenset[str]) -> Self:
        """Return the same settings with another set of fields marked as passed."""
        return _made(type(self), asdict(self), given)

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), asdict(self), self.given)

    def as_plain(self, *, only_given: bool = False) -> dict[str, Any]:
        """Return the fields as plain values, including those of nested settings.

        Args:
            only_given: return only fields that were passed.
        """
        names = [name for name in self.__struct_fields__ if not only_given or name in self.given]
        return {name: _plain(getattr(self, name), only_given) for name in names}


def field_names(model: type[Settings]) -> tuple[str, ...]:
    """Return the names of all fields."""
    return model.__struct_fields__


def default_of(model: type[Settings], name: str) -> Any:
    """Return a field's default."""
    return _fields(model)[name].default


def expected_of(model: type[Settings], name: str) -> str:
    """Return what a field accepts, in words."""
    return _fields(model)[name].expected


class _Field(Struct, frozen=True):
    """A field of a settings class.

    Attributes:
        type: its type, as checked by msgspec.
        expected: what is accepted, in words.
        default: its default; ``NODEFAULT``: the field is required.
        model: the settings class of its value, or of its values by name; None: other values.
    """

    type: Any
    expected: str
    default: Any
    model: type[Settings] | None

    def read(self, name: str, value: Any) -> Any:
        """Return the value of the field, converted and checked.

        Raises:
            SettingError: the value is not accepted.
        """
        try:
            if self.model is None:
                return convert(value, self.type)
            return self._settings(name, value)
        except ValidationError as error:
            problem = f"{_shown(value)} is not accepted"
            raise SettingError((name,), problem, expected=self.expected or str(error)) from None

    def _settings(self, name: str, value: Any) -> Any:
        assert self.model is not None
        if value is None and type(None) in get_args(self.type):
            return None
        if get_origin(self.type) is dict and isinstance(value, Mapping):
            return {key: _built(self.model, one, (name, str(key))) for key, one in value.items()}
        return _built(self.model, value, (name,))


@cache
def _fields(model: type[Settings]) -> dict[str, _Field]:
    """Return the fields of a settings class by name. They are computed at first use, not at import."""
    return {field.name: _field(field) for field in struct_fields(model)}


def _field(field: FieldInfo) -> _Field:
    kind, expected = field.type, ""
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        expected = next((note.description for note in notes if note.description), "")
    default = field.default
    if field.default_factory is not NODEFAULT:
        default = field.default_factory()
    within = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, Settings)]
    return _Field(kind if within else field.type, expected, default, within[0] if within else None)


def _built(model: type[Settings], value: Any, key: tuple[str, ...]) -> Settings:
    """Return nested settings, which may be passed as plain values."""
    if isinstance(value, model):
        return value
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValidationError("a mapping")
    try:
        return model(**value)
    except SettingError as error:
        raise SettingError.of(error, *key) from None


def _made(model: type[AnySettings], values: Mapping[str, Any], given: frozenset[str]) -> AnySettings:
    """Return settings made of checked values."""
    made: AnySettings = StructMeta.__call__(model, **values)
    force_setattr(made, "_given", given)
    return made


def _plain(value: Any, only_given: bool) -> Any:
    if isinstance(value, Settings):
        return value.as_plain(only_given=only_given)
    if isinstance(value, dict):
        return {key: _plain(one, only_given) for key, one in value.items()}
    return [_plain(one, only_given) for one in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    """Return the value as a short text, as in YAML; types that YAML does not have are named."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    try:
        shown = repr(value)
    except ValueError:  # an integer of thousands of digits
        shown = "an integer of very many digits"
    shown = shown if len(shown) <= 200 else f"{shown[:160]} ... ({len(shown)} characters)"
    known = isinstance(value, str | int | float | list | dict)
    return shown if known else f"{shown} ({type(value).__name__})"
