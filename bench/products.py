"""PyTorch's rates for the products that crates/foreword-kernels/benches/products.rs measures: GFLOP/s, and GB/s of weights where
they come from memory.

    python bench/products.py [THREADS]          (cargo bench -p foreword-kernels has ours; run them in turns)
"""

import sys
import time

import torch

SHAPES = [
    (356, 768, 3072), (356, 3072, 768), (2048, 2048, 2048), (1300, 192, 512), (1300, 192, 1024), (32, 192, 8192), (8, 768, 3072),
    (4, 768, 3072), (1, 768, 3072),
]
MODEL = (768, 3072, 24)


def main():
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    for n, inputs, outputs in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            forward, gradient = measure(n, inputs, outputs, 1, dtype)
            operations = 2 * n * inputs * outputs / 1e9
            print(f"{n}x{inputs}x{outputs} {dtype}: forward {operations / forward:.1f}, gradient {operations / gradient:.1f}")
    inputs, outputs, n_matrices = MODEL
    for n in (1, 4, 8):
        for dtype in (torch.float32, torch.bfloat16):
            forward, gradient = measure(n, inputs, outputs, n_matrices, dtype)
            size = n_matrices * inputs * outputs * dtype.itemsize / 1e9
            print(f"{n}x{inputs}x{outputs} from memory {dtype}: forward {size / forward:.1f}, gradient {size / gradient:.1f} GB/s")


def measure(n, inputs, outputs, n_matrices, dtype):
    """Seconds that `n` rows by all matrices take, forward and gradient."""
    weights = [torch.rand(outputs, inputs, dtype=dtype) - 0.5 for _ in range(n_matrices)]
    x, dy = torch.rand(n, inputs, dtype=dtype), torch.rand(n, outputs, dtype=dtype)
    repetitions = 40 if n_matrices * n * inputs * outputs < 2e9 else 5
    return best(lambda: [x @ weight.T for weight in weights], repetitions), best(lambda: [dy @ weight for weight in weights], repetitions)


def best(run, repetitions):
    fastest = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


if __name__ == "__main__":
    main()
