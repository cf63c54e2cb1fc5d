"""The types a GGUF's weights can be quantized to, by the names llama.cpp's own program gives them."""

from __future__ import annotations

from convert.errors import ConvertError

# llama.cpp's number of the mix, and bits for each weight at most, as a rule: for the check of free space only.
TYPES = {
    "F32": (0, 32.0),
    "F16": (1, 16.0),
    "BF16": (32, 16.0),
    "Q8_0": (7, 8.6),
    "Q6_K": (18, 6.8),
    "Q5_K_M": (17, 6.2),
    "Q5_K_S": (16, 6.0),
    "Q5_1": (9, 6.5),
    "Q5_0": (8, 6.0),
    "Q4_K_M": (15, 5.3),
    "Q4_K_S": (14, 5.0),
    "Q4_1": (3, 5.5),
    "Q4_0": (2, 5.0),
    "IQ4_NL": (25, 5.0),
    "IQ4_XS": (30, 4.8),
    "Q3_K_L": (13, 4.8),
    "Q3_K_M": (12, 4.5),
    "Q3_K_S": (11, 4.2),
    "IQ3_M": (27, 4.3),
    "IQ3_S": (26, 4.2),
    "Q2_K": (10, 4.0),
    "TQ2_0": (37, 4.0),
    "TQ1_0": (36, 4.0),
    "Q2_0": (41, 4.0),
    "Q1_0": (40, 3.0),
    "MXFP4_MOE": (38, 8.6),
}
PLAIN = ("F32", "F16", "BF16")
# These are made with the help of an "importance matrix", which has to be measured with the model.
GUIDED = ("IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S")
ALIASES = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}


def type_named(wanted: str) -> str:
    """The type's own name. Raises ConvertError with the list of those there are."""
    name = wanted.upper()
    name = ALIASES.get(name, name)
    if name in GUIDED:
        raise ConvertError(f"{name} needs an importance matrix, which is not made here; IQ3_S or Q2_K are about as small.")
    if name not in TYPES:
        raise ConvertError(f"There is no type {wanted[:40]!r}; there are: {', '.join(TYPES)}.")
    return name
