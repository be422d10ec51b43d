"""One base for validated settings, with errors that name the key, what was found and what is accepted."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from ffenc.codecs.suggest import accepted
from ffenc.errors import ConfigError


class SettingError(ConfigError):
    """A :class:`ConfigError` that knows which key it is about.

    Attributes:
        key: path of the key, outermost first; ``where`` is the same with dots.
    """

    def __init__(self, key: tuple[str, ...], found: str, expected: str = "") -> None:
        super().__init__(found, expected=expected, where=".".join(key))
        self.key = key

    @classmethod
    def of(cls, error: ConfigError, *key: str) -> Self:
        """Return an error as one of a key, which the error may name itself, or of a key in it.

        Args:
            error: what is wrong with the value of the key.
            key: path of the key, outermost first.
        """
        if isinstance(error, SettingError):
            return cls((*key, *error.key), error.problem.found, error.problem.expected)
        if error.where in key[-1:]:
            return cls(key, error.problem.found, error.problem.expected)
        return cls(key, str(error))


class Settings(BaseModel):
    """Frozen, strictly typed settings; unknown keys are refused with the nearest accepted one."""

    # The validators are built when first used: importing the package builds none.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explain(type(self), values, error) from None


def _explain(model: type[Settings], values: dict[str, Any], error: ValidationError) -> SettingError:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        return SettingError((key,), f"unknown key{accepted(key, model.model_fields)}")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return SettingError.of(cause, *([key] if key else []))
    field = model.model_fields.get(key)
    expected = field.description if field is not None else None
    if first["type"] == "missing":
        return SettingError((key,), "is missing", expected=f"{expected}")
    found = values.get(key)
    return SettingError((key,), f"{_shown(found)} is not accepted", expected=f"{expected or first['msg']}")


def _shown(value: object) -> str:
    """Return a value, not too long; of a type that YAML does not have, with the type's name."""
    try:
        shown = repr(value)
    except ValueError:  # an integer of thousands of digits
        shown = "an integer of very many digits"
    shown = shown if len(shown) <= 200 else f"{shown[:160]} ... ({len(shown)} characters)"
    known = isinstance(value, str | int | float | list | dict) or value is None
    return shown if known else f"{shown} ({type(value).__name__})"
