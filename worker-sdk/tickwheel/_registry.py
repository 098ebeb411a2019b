"""Handlers: the `@task` decorator, and how a run's parameters become a handler's arguments.

A handler's signature is read once, when the worker starts (then all names that annotations use exist); per attempt
there is only a dictionary to check, and nothing at all for a handler without parameters.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from .errors import HandlerError, ParameterError

__all__ = ["Handler", "Registry", "registered", "registry", "task"]

Modules: TypeAlias = tuple[str, ...]
_Function = TypeVar("_Function", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:/-]{0,126}[A-Za-z0-9_])?")
# Values of exactly these types need no pydantic: 0.1 us against 0.6 us per parameter.
_PLAIN = (str, int, float, bool)
_EMPTY = inspect.Parameter.empty


def _is_asynchronous(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with `async def __call__`
    )


class Handler:
    """A function under the name that tasks call it by."""

    __slots__ = (
        "_parameters", "asynchronous", "bare", "function", "modules", "name", "open", "process", "required",
    )  # fmt: skip

    def __init__(
        self, name: str, function: Callable[..., Any], *, process: bool = False, modules: Modules = ()
    ) -> None:
        self.name = name
        self.function = function
        self.process = process
        """It runs in a process of its own."""
        self.modules = modules
        """Whose import registers it, for another process."""
        self.asynchronous = not process and _is_asynchronous(function)
        """It runs in the event loop."""
        signature = _signature(name, function)
        hints = _hints(name, function, signature[1:])
        self._parameters: dict[str, tuple[type | None, TypeAdapter[Any] | None]] = {}
        self.required: list[str] = []
        """The parameters that must be given."""
        self.open = False
        """It takes parameters of any name."""
        for parameter in signature[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                self.open = True
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise HandlerError(
                    f"handler {name}: parameter {parameter.name!r} is positional, but parameters are given by name; "
                    "after the context write plain or keyword parameters, for example (ctx, shop: str)"
                )
            else:
                self._parameters[parameter.name] = _check(name, parameter, hints)
                if parameter.default is _EMPTY:
                    self.required.append(parameter.name)
        self.bare = not self._parameters and not self.open

    @property
    def adapters(self) -> dict[str, TypeAdapter[Any] | None]:
        """What validates each named parameter; None: it is of any type."""
        return {name: adapter for name, (_, adapter) in self._parameters.items()}

    def result_hint(self) -> Any:
        """The annotation of the result; Any where there is none, or one that can only be read by a type checker."""
        owner = _owner(self.function)
        annotation = getattr(owner, "__annotations__", {}).get("return", Any)
        wanted = types.SimpleNamespace(__annotations__={"return": annotation})
        try:
            return typing.get_type_hints(wanted, getattr(owner, "__globals__", {}), include_extras=True)["return"]
        except (NameError, AttributeError, TypeError, SyntaxError):
            return Any

    def arguments(self, parameters: msgspec.Raw) -> dict[str, Any]:
        """The keyword arguments for these parameters (a JSON object). Raises `ParameterError`."""
        try:
            given = msgspec.json.decode(parameters)
        except msgspec.DecodeError as error:
            raise ParameterError(f"the parameters for handler {self.name} are not JSON: {error}") from error
        if not isinstance(given, dict):
            raise ParameterError(f"the parameters for handler {self.name} must be a JSON object")
        known = self._parameters
        arguments = {}
        for key, value in given.items():
            entry = known.get(key)
            if entry is None:
                if not self.open:
                    raise ParameterError(
                        f"handler {self.name} has no parameter {key!r}; it has {_list(known) or 'none'}"
                    )
            else:
                plain, adapter = entry
                if adapter is not None and type(value) is not plain:
                    try:
                        value = adapter.validate_python(value)
                    except ValidationError as error:
                        raise ParameterError(_faults(self.name, key, error)) from None
            arguments[key] = value
        for key in self.required:
            if key not in arguments:
                raise ParameterError(
                    f"handler {self.name} needs the parameter {key!r}, which was not given; "
                    f"given were {_list(given) or 'none'}"
                )
        return arguments


class _Registered(NamedTuple):
    function: Callable[..., Any]
    process: bool
    modules: Modules


class Registry:
    """The functions that `@task` saw, by name."""

    def __init__(self) -> None:
        self._registered: dict[str, _Registered] = {}
        self.in_child = False
        """This is the process of a handler, and no `Worker` works in it."""

    def add(self, name: str, function: Callable[..., Any], *, process: bool = False, modules: Modules = ()) -> None:
        """Register a function. A second one of the same name is an error, unless it is the same one, loaded again."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise HandlerError(
                f"@task needs the handler's name: {name!r} is none; allowed are 1 to 128 letters, digits and "
                "'_' with '.', ':', '/' and '-' inside, for example @task('shop-sync')"
            )
        if not callable(function):
            raise HandlerError(f"handler {name}: {function!r} is not a function")
        other = self._registered.get(name)
        if other is not None and _where(other.function) != _where(function):
            raise HandlerError(
                f"two handlers have the name {name!r}: {_where(other.function)} and {_where(function)}; rename one of "
                "them"
            )
        self._registered[name] = _Registered(function, process, modules)

    def functions(self) -> dict[str, Callable[..., Any]]:
        """All of them, by name."""
        return {name: known.function for name, known in self._registered.items()}

    def handlers(self) -> dict[str, Handler]:
        """All of them, with their signatures read. Raises `HandlerError`."""
        return {
            name: Handler(name, known.function, process=known.process, modules=known.modules)
            for name, known in self._registered.items()
        }


registry = Registry()
"""Where `@task` registers, and where `Worker` looks by default."""


def registered() -> list[str]:
    """The names of all handlers that `@task` has registered so far, sorted. Raises `HandlerError` for a function whose
    signature or annotations cannot be used, as `Worker` would when it starts."""
    return sorted(registry.handlers())


def task(name: str, *, process: bool = False) -> Callable[[_Function], _Function]:
    """Register a function as the handler `name`, which a ScheduledTask names in `spec.handler`.

    The function may be `async` or not (then it runs in a thread). Its first argument is the `Context`; the others are
    the run's parameters by name, validated by pydantic when they are annotated. It is returned unchanged.

    With `process=True` each attempt runs in a process that nothing else runs in, which is killed if the handler does
    not stop within its grace. The process imports the module of the function, so `@task` must be at the module's top
    level. Default: false, in the worker's own process.
    """
    if callable(name):
        raise HandlerError("@task needs the handler's name, for example @task('shop-sync')")
    caller = str(sys._getframe(1).f_globals.get("__name__", ""))

    def register(function: _Function) -> _Function:
        own = str(getattr(inspect.unwrap(function), "__module__", ""))
        registry.add(name, function, process=process, modules=(own, caller) if process else ())
        return function

    return register


def _where(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '?')}.{name}"


def _signature(name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise HandlerError(f"handler {name} is a generator: it must return its result, not yield")
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise HandlerError(f"handler {name} must take the context as its first argument, for example (ctx, shop: str)")
    return parameters


def _owner(function: Callable[..., Any]) -> Any:
    """What has the annotations."""
    owner = inspect.unwrap(function)
    return owner if inspect.isroutine(owner) else getattr(owner, "func", None) or type(owner).__call__


def _hints(name: str, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Mapping[str, Any]:
    """The types of the parameters. Those of the context and of the result are not looked at: they may well be imported
    for the type checker only."""
    owner = _owner(function)
    found = getattr(owner, "__annotations__", {})
    wanted = types.SimpleNamespace(
        __annotations__={parameter.name: found[parameter.name] for parameter in parameters if parameter.name in found}
    )
    try:
        return typing.get_type_hints(wanted, getattr(owner, "__globals__", {}), include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise HandlerError(
            f"handler {name}: the annotation of a parameter cannot be read: {error}; what it names must be imported in "
            f"module {owner.__module__}, outside of `if TYPE_CHECKING`"
        ) from error


def _check(
    name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]
) -> tuple[type | None, TypeAdapter[Any] | None]:
    hint = hints.get(parameter.name, Any)
    if hint is Any:
        return None, None
    try:
        adapter = TypeAdapter(hint)
    except PydanticSchemaGenerationError as error:
        raise HandlerError(
            f"handler {name}: pydantic cannot validate parameter {parameter.name!r} of type {hint!r}; use JSON types, "
            "dataclasses or pydantic models"
        ) from error
    return (hint if hint in _PLAIN else None), adapter


def _faults(handler: str, key: str, error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False)[:5]:
        path = "".join(f"[{part!r}]" for part in fault["loc"])
        faults.append(f"{key}{path}: {fault['msg']} (got {fault['input']!r:.100})")
    return f"parameter {key!r} of handler {handler} is wrong: " + "; ".join(faults)


def _list(names: typing.Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
