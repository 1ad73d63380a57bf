"""PyTorch's rates for the products that crates/foreword-kernels/benches/products.rs measures, in GFLOP/s.

    python bench/products.py [THREADS]          (cargo bench -p foreword-kernels has ours; run them in turns)
"""

import sys
import time

import torch

SHAPES = [(356, 768, 3072), (356, 3072, 768), (1300, 192, 512), (1300, 192, 1024), (32, 192, 8192), (8, 768, 3072), (1, 768, 3072)]


def main():
    if len(sys.argv) > 1:
        torch.set_num_threads(int(sys.argv[1]))
    for n, inputs, outputs in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            weight = torch.rand(outputs, inputs, dtype=dtype) - 0.5
            x, dy = torch.rand(n, inputs, dtype=dtype), torch.rand(n, outputs, dtype=dtype)
            forward, gradient = best(lambda: x @ weight.T), best(lambda: dy @ weight)
            operations = 2 * n * inputs * outputs / 1e9
            print(f"{n}x{inputs}x{outputs} {dtype}: forward {operations / forward:.1f}, gradient {operations / gradient:.1f}")


def best(run, repetitions=40):
    fastest = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


if __name__ == "__main__":
    main()
