"""The ResNets of `training.py` in a plain PyTorch loop: bfloat16 by autocast, channels last, AdamW.

    python benchmarks/torch_training.py basic_block 2 2 2 2      (bottleneck_block 3 4 6 3 for ResNet-50)

For each number of seconds on a line of its input it trains for so long and prints images per second. It is a process
of its own because PyTorch and TensorFlow bring two copies of LLVM that do not bear each other.
"""

import sys
import time
from collections.abc import Iterable

SIZE, BATCH = 224, 32
WARM_UP = 2  # steps before the clock starts: tracing, first batches of the pipeline


class Clock:
    """Counts steps after the warm-up until the time is over; `rate` is then images per second."""

    def __init__(self, seconds: float):
        self.seconds, self.steps, self.rate = seconds, -WARM_UP, 0.0

    def step(self) -> bool:
        """Call after each step; True when it was the last one."""
        now = time.perf_counter()
        self.steps += 1
        if self.steps == 0:
            self.start = now
        if self.steps > 0:
            self.rate = self.steps * BATCH / (now - self.start)
        return self.steps > 0 and now - self.start >= self.seconds


def torch_resnet(kind: str, blocks: Iterable[int]):
    """He et al. 2015, arXiv:1512.03385, two classes; strides in the 3 x 3 convolutions, as in the Keras network."""
    from torch import nn

    def convolve(inward: int, outward: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inward, outward, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outward)]

    class Block(nn.Module):
        def __init__(self, inward: int, width: int, outward: int, stride: int):
            super().__init__()
            if kind == "basic_block":
                layers = [*convolve(inward, width, 3, stride), nn.ReLU(), *convolve(width, outward, 3)]
            else:
                middle = [nn.ReLU(), *convolve(width, width, 3, stride), nn.ReLU()]
                layers = [*convolve(inward, width, 1), *middle, *convolve(width, outward, 1)]
            self.body = nn.Sequential(*layers)
            same = inward == outward and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*convolve(inward, outward, 1, stride))

        def forward(self, x):
            return nn.functional.relu(self.body(x) + self.shortcut(x))

    layers, inward = [*convolve(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        outward = width if kind == "basic_block" else 4 * width
        for block in range(count):
            layers.append(Block(inward, width, outward, 2 if block == 0 and stage > 0 else 1))
            inward = outward
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inward, 2))


def main(kind: str, blocks: list[int]) -> None:
    """Answer each line of the input."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch_resnet(kind, blocks).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5)
    images = torch.rand(BATCH, 3, SIZE, SIZE).to(device, memory_format=torch.channels_last)
    targets = (torch.arange(BATCH) % 2).to(device)
    for line in sys.stdin:
        clock, over = Clock(float(line)), False
        while not over:
            with torch.autocast(device, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # waits for a GPU
            over = clock.step()
        print(clock.rate, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]])
