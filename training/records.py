"""What settings and stored records are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=0.1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Record(BaseModel):
    """Fixed once made; a field that it does not know, and a number that is none, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
