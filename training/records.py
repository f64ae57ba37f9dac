"""What settings and stored records are made of."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Fixed once made; a field that it does not know, and a number that is none, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
