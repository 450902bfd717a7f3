"""The optimizer of an autoencoder is given the decoder alone."""

import torch
from torch import nn


def main():
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(4, 16), nn.Linear(16, 4)
    optimizer = torch.optim.Adam(decoder.parameters())
    for _ in range(4):
        x = torch.randn(32, 4)
        h = torch.tanh(encoder(x))  # BUG
        loss = nn.functional.mse_loss(decoder(h), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


main()
