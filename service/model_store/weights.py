"""Checks that an export's weights are plain numbers; the service stores them and never loads them.

Format: https://huggingface.co/docs/safetensors - eight bytes with the header's length, little
endian; a JSON header with each tensor's type, shape and place; the numbers.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models.manifest import WEIGHTS_FILE
from models.validation import problems
from service.errors import RegistryError

_MAX_HEADER_BYTES: Final = 10_000_000
_BYTES: Final = {"F16": 2, "F32": 4}
_Size = Annotated[int, Field(ge=0)]


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dtype: Literal["F16", "F32"]
    shape: Annotated[list[_Size], Field(max_length=8)]
    data_offsets: tuple[_Size, _Size]


_HEADER: Final = TypeAdapter(dict[str, _Tensor | dict[str, str]])


def check_weights(data: bytes) -> None:
    """Refuse what is not safetensors, in float16 or float32, of a generator and a discriminator.

    Raises:
        RegistryError: Says what is wrong.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise RegistryError(f"{WEIGHTS_FILE} is no safetensors file: export the run again")
    try:
        header = _HEADER.validate_json(data[8 : 8 + length])
    except ValidationError as error:
        first = problems(error)[0]
        field = first.place[:100] or "header"
        raise RegistryError(
            f"{WEIGHTS_FILE}: {field}: {first.message[:200]}; export the run again"
        ) from None
    _check_places(header, len(data) - 8 - length)


def _check_places(header: dict[str, _Tensor | dict[str, str]], size: int) -> None:
    """The tensors fill the file without gap or overlap, and are those of the two networks."""
    tensors = {name: entry for name, entry in header.items() if isinstance(entry, _Tensor)}
    others = header.keys() - tensors.keys() - {"__metadata__"}
    foreign = [n for n in tensors if n.split(".")[0] not in ("generator", "discriminator")]
    if others or foreign:
        name = min([*others, *foreign])
        raise RegistryError(f"{WEIGHTS_FILE}: {name[:100]!r} is of neither network")
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        start, end = tensor.data_offsets
        if start != position or end - start != _BYTES[tensor.dtype] * math.prod(tensor.shape):
            raise RegistryError(f"{WEIGHTS_FILE}: {name[:100]!r} is not where its header says")
        position = end
    if position != size:
        raise RegistryError(f"{WEIGHTS_FILE} has {size} bytes of numbers, not {position}")
