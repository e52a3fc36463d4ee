"""Run by a Python with torch and torchvision: state dicts of random weights, and the features that they give.

python write_state_dicts.py FOLDER NAME...

In: FOLDER/pictures.npy, float32 [n, S, S, 3], RGB, 0 to 255. Out, for each name of torchvision's: FOLDER/NAME.pth, as
torchvision writes it, and FOLDER/NAME.npy, float32 [n, d], what goes into its last layer.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

folder = Path(sys.argv[1])
mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
pictures = (np.load(folder / "pictures.npy") / 255 - mean) / deviation
pictures = torch.tensor(pictures.transpose(0, 3, 1, 2), dtype=torch.float32)
for name in sys.argv[2:]:
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # untrained ones change nothing, so that nothing could be seen
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.2, 0.8)
    torch.save(network.state_dict(), folder / f"{name}.pth")
    if name == "alexnet":
        network.classifier[-1] = torch.nn.Identity()
    else:
        network.fc = torch.nn.Identity()
    with torch.no_grad():
        np.save(folder / f"{name}.npy", network(pictures).numpy())
