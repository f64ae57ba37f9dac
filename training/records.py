"""Base class and common field types of settings and stored records."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=0.1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Record(BaseModel):
    """An immutable record that refuses unknown fields, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
