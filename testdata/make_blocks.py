"""Golden blocks: numbers that the `gguf` package reads out of random blocks of each format, and blocks that it writes.

    pip install gguf==0.19.0 numpy==2.4.6
    python testdata/make_blocks.py        # testdata/golden/blocks.bin, the same bytes every time

The file holds, for q8_0, q6_k, q5_k, q4_k, q5_0 and q4_0 in this order: the blocks of 512 numbers, then those numbers as f32. Then
come 512 numbers as f32, and what the package makes of them in q8_0, q5_0 and q4_0.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

N = 512
# Where in a block half-precision numbers lie: they must be ordinary ones.
HALVES = {Type.Q8_0: [0], Type.Q6_K: [208], Type.Q5_K: [0, 2], Type.Q4_K: [0, 2], Type.Q5_0: [0], Type.Q4_0: [0]}


def main() -> None:
    random = np.random.default_rng(7)
    parts = []
    for kind, halves in HALVES.items():
        numbers, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (N // numbers, size), dtype=np.uint8)
        for at in halves:
            scales = (random.normal(size=N // numbers) * 0.01).astype("<f2")
            # One subnormal scale each.
            scales[-1] = 3e-6
            blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        values = dequantize(blocks.reshape(1, -1), kind)
        parts += [blocks.tobytes(), values.astype("<f4").tobytes()]
    values = (random.normal(size=(1, N)) * 0.1).astype("<f4")
    values[0, :32] = 0
    parts.append(values.tobytes())
    parts += [quantize(values, kind).tobytes() for kind in (Type.Q8_0, Type.Q5_0, Type.Q4_0)]
    Path(__file__).with_name("golden").joinpath("blocks.bin").write_bytes(b"".join(parts))


if __name__ == "__main__":
    main()
