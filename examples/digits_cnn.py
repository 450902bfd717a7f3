"""A small CNN learns to tell 8x8 digits apart; the digits are drawn in this file.

A hundred steps of SGD over noisy, shifted copies of ten glyphs; the accuracy on fresh copies passes 90 %.

    explore examples/digits_cnn.py
    explore --call 100 -o last_step.svg examples/digits_cnn.py
"""

import torch
from torch import nn
from torch.nn import functional

GLYPHS = """
.###. ..#.. .###. ####. ...#. ##### .###. ##### .###. .###.
#...# .##.. #...# ....# ..##. #.... #.... ....# #...# #...#
#...# ..#.. ....# ..##. .#.#. ####. ####. ...#. .###. .####
#...# ..#.. ..##. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# ..#.. #...# ....#
.###. .###. ##### .###. ...#. .###. .###. ..#.. .###. .###.
"""


def glyphs():
    """The ten digits as a (10, 6, 5) tensor of zeros and ones."""
    rows = [row.split() for row in GLYPHS.strip().splitlines()]
    digits = [[[cell == "#" for cell in row[digit]] for row in rows] for digit in range(10)]
    return torch.tensor(digits).float()


def batch(size):
    """Noisy digits on an 8x8 canvas at random places: images (size, 1, 8, 8) and labels (size,)."""
    labels = torch.randint(10, (size,))
    images = 0.2 * torch.randn(size, 1, 8, 8)
    for image, digit in zip(images, glyphs()[labels], strict=True):
        top, left = torch.randint(3, ()).item(), torch.randint(4, ()).item()
        image[0, top : top + 6, left : left + 5] += digit
    return images, labels


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, images):
        x = functional.relu(self.norm1(self.conv1(images)))
        x = functional.max_pool2d(x, 2)
        x = functional.relu(self.norm2(self.conv2(x)))
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def train(steps=100):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(1, steps + 1):
        images, labels = batch(64)
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 25 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    return model


def accuracy(model):
    model.eval()
    images, labels = batch(500)
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {accuracy(train()):.1%}")
