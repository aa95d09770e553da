"""A PyTorch model on parameter servers: run it with `downpour run --workers 2 examples/pytorch_worker.py`."""

import sys

import torch

import downpour

torch.manual_seed(0)
x, noise = torch.randn(2048, 8), 0.1 * torch.randn(2048, 1)
y = x.square().mean(1, keepdim=True) + noise
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
parameters = dict(model.named_parameters())

address = sys.argv[1] if len(sys.argv) > 1 else None  # without `downpour run`: that of `downpour ps --script`
initial = {name: p.detach().numpy() for name, p in parameters.items()}
with downpour.connect(address, initial, optimizer="adam", learning_rate=0.01) as client:
    weights = client.pull()
    for step in torch.randperm(2048).split(32)[client.rank :: client.size] * 10:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        loss = torch.nn.functional.mse_loss(model(x[step]), y[step])
        gradients = torch.autograd.grad(loss, parameters.values())
        named = {name: g.numpy() for name, g in zip(parameters, gradients, strict=True)}
        weights, reply = client.push_pull(named, samples=len(step), loss=loss.item())
    print(f"worker {client.rank}: loss {loss.item():.3f}, staleness {reply.staleness}")
