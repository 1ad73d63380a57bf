"""Golden blocks: numbers that the `gguf` package reads out of random blocks of each format, and blocks that it writes.

    pip install gguf==0.19.0 numpy==2.4.6
    python testdata/make_blocks.py        # testdata/golden/blocks.bin, the same bytes every time

The file holds, for q8_0, q6_k, q5_k, q4_k, q5_0 and q4_0 in this order: the blocks of 512 numbers, then those numbers as f32. Then
come 512 numbers as f32, and what the package makes of them in q8_0, q5_0 and q4_0. At the end come the formats that are only read,
as the first six: q5_1, q4_1, iq4_nl, iq4_xs, q3_k, q2_k and mxfp4.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

N = 512
# Where in a block half-precision numbers lie: they must be ordinary ones.
HALVES = {Type.Q8_0: [0], Type.Q6_K: [208], Type.Q5_K: [0, 2], Type.Q4_K: [0, 2], Type.Q5_0: [0], Type.Q4_0: [0]}
READ_ONLY = {
    Type.Q5_1: [0, 2],
    Type.Q4_1: [0, 2],
    Type.IQ4_NL: [0],
    Type.IQ4_XS: [0],
    Type.Q3_K: [108],
    Type.Q2_K: [80, 82],
    Type.MXFP4: [],
}


def read(formats: dict[Type, list[int]], random: np.random.Generator) -> list[bytes]:
    """Random blocks of each format, and the numbers in them."""
    parts = []
    for kind, halves in formats.items():
        numbers, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (N // numbers, size), dtype=np.uint8)
        for at in halves:
            scales = (random.normal(size=N // numbers) * 0.01).astype("<f2")
            # One subnormal scale each.
            scales[-1] = 3e-6
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        if kind == Type.MXFP4:
            # Exponents: ordinary ones, and the smallest three, two of which give subnormal scales.
            blocks[:, 0] = random.integers(110, 130, N // numbers)
            blocks[:3, 0] = [0, 1, 2]
        values = dequantize(blocks.reshape(1, -1), kind)
        parts += [blocks.tobytes(), values.astype("<f4").tobytes()]
    return parts


def main() -> None:
    random = np.random.default_rng(7)
    parts = read(HALVES, random)
    values = (random.normal(size=(1, N)) * 0.1).astype("<f4")
    values[0, :32] = 0
    parts.append(values.tobytes())
    parts += [quantize(values, kind).tobytes() for kind in (Type.Q8_0, Type.Q5_0, Type.Q4_0)]
    parts += read(READ_ONLY, np.random.default_rng(8))
    Path(__file__).with_name("golden").joinpath("blocks.bin").write_bytes(b"".join(parts))


if __name__ == "__main__":
    main()
