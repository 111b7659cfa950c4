"""The element types of safetensors, their sizes in bits and torch's names for them."""

from typing import NamedTuple


class Dtype(NamedTuple):
    """A safetensors element type: bits of one element, and torch's name of it."""

    bits: int
    torch_name: str


# safetensors 0.8; the sub-byte types are packed, so a tensor of them must end on a whole byte.
DTYPES: dict[str, Dtype] = {
    "BOOL": Dtype(8, "torch.bool"),
    "U8": Dtype(8, "torch.uint8"),
    "I8": Dtype(8, "torch.int8"),
    "U16": Dtype(16, "torch.uint16"),
    "I16": Dtype(16, "torch.int16"),
    "U32": Dtype(32, "torch.uint32"),
    "I32": Dtype(32, "torch.int32"),
    "U64": Dtype(64, "torch.uint64"),
    "I64": Dtype(64, "torch.int64"),
    "F4": Dtype(4, "torch.float4_e2m1fn_x2"),
    "F6_E2M3": Dtype(6, "float6_e2m3"),
    "F6_E3M2": Dtype(6, "float6_e3m2"),
    "F8_E4M3": Dtype(8, "torch.float8_e4m3fn"),
    "F8_E5M2": Dtype(8, "torch.float8_e5m2"),
    "F8_E8M0": Dtype(8, "torch.float8_e8m0fnu"),
    "F8_E4M3FNUZ": Dtype(8, "torch.float8_e4m3fnuz"),
    "F8_E5M2FNUZ": Dtype(8, "torch.float8_e5m2fnuz"),
    "F16": Dtype(16, "torch.float16"),
    "BF16": Dtype(16, "torch.bfloat16"),
    "F32": Dtype(32, "torch.float32"),
    "F64": Dtype(64, "torch.float64"),
    "C64": Dtype(64, "torch.complex64"),
}
BITS = {name: kind.bits for name, kind in DTYPES.items()}
