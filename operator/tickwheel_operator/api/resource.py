"""What all kinds share: group, version, metadata, and how the CRD presents a kind to kubectl.

`generate` reads a kind's `presentation`; `parse` finds the class of a document by `kind`.
Invariant: `status` is a projection. It is part of the schema and never of a parsed resource, so that
nothing can be decided from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from tickwheel_operator.api.faults import FieldFault
from tickwheel_operator.api.schema import Model, Rule

__all__ = ["API_VERSION", "GROUP", "VERSION", "Column", "Metadata", "Presentation", "Resource", "Scale"]

GROUP = "tickwheel.io"
VERSION = "v1alpha1"
API_VERSION: Final = "tickwheel.io/v1alpha1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    """JSON path of one value."""
    type: Literal["string", "integer", "boolean", "date"] = "string"
    """`date` prints how long ago it was, which reads as <invalid> for the future."""
    wide: bool = False
    """Shown with `-o wide` only."""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """The `scale` subresource: what `kubectl scale` and autoscalers write and read."""

    spec_path: str = ".spec.replicas"
    status_path: str = ".status.replicas"
    selector_path: str = ".status.selector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How kubectl knows a kind."""

    plural: str
    short: str | None
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    """JSON paths for `--field-selector`."""
    scale: Scale | None = None
    categories: tuple[str, ...] = ("tickwheel",)


READY = Column(
    name="Ready",
    path=".status.conditions[?(@.type=='Ready')].status",
    description="True: armed and doing what the spec says",
)
AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")


class Metadata(Model):
    """The part of the object's metadata that the operator reads; the rest is Kubernetes' own affair."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[
        str,
        Field(max_length=253, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ] = ""
    generate_name: Annotated[str, Field(max_length=253)] = ""
    namespace: Annotated[str, Field(max_length=63)] = ""
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str = ""
    """RFC 3339; empty in a file."""
    deletion_timestamp: str = ""
    resource_version: str = ""


class Resource(Model):
    """An object with a kind. Subclasses add `kind`, `spec` and the type of `status`."""

    presentation: ClassVar[Presentation]
    spec_required: ClassVar[bool] = True
    status_model: ClassVar[type[Model] | None] = None
    """The schema of `status`; None: the kind has none."""
    name_limit: ClassVar[int] = 253
    """The longest `metadata.name`."""

    api_version: Literal["tickwheel.io/v1alpha1"] = API_VERSION
    kind: str
    metadata: Metadata
    spec: Any

    def faults_of_meaning(self) -> Iterator[FieldFault]:
        """What no schema can check (`meaning`), in the order of the spec."""
        return iter(())

    @property
    def identity(self) -> str:
        """Namespace and name, of which the `H` of cron expressions is drawn."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @classmethod
    def kind_name(cls) -> str:
        return cls.__name__

    @classmethod
    def root_rules(cls) -> tuple[Rule, ...]:
        """The rules of the whole object: those of the class, and the limit of its name."""
        if cls.name_limit == 253:
            return cls.rules
        return (
            *cls.rules,
            Rule(
                f"size(self.metadata.name) <= {cls.name_limit}",
                f"metadata.name may have {cls.name_limit} characters at most, since names of other objects "
                "are made from it",
                lambda resource: len(resource.metadata.name) <= resource.name_limit,
            ),
        )
