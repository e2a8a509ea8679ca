"""Your own tensors, encoder and augmentation: python examples/own_model.py (half a minute)."""

from sklearn.datasets import load_digits
from torch import nn, randn_like, tensor

from secure_fl import Dataset, Federation, FederationConfig, load_encoder

bunch = load_digits()
data = Dataset.from_arrays(tensor(bunch.images / 16)[:, None], tensor(bunch.target))
encoder = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 64)
)
config = FederationConfig(
    pretrain={"rounds": 5},
    pools={"rounds": 6},
    partition={"kind": "rotation", "clients": 12, "groups": 3},
)

if __name__ == "__main__":
    result = Federation(
        config, data=data, encoder=encoder, augment=lambda x: x + 0.1 * randn_like(x)
    ).run("runs/own_model")
    print(
        "features",
        result.encoder(data.x[:2]).shape,
        "from",
        load_encoder("runs/own_model", encoder).__class__.__name__,
    )
    print(
        "pool of each client",
        result.choices,
        "accuracy",
        round(result.summary.pools.accuracy, 3),
    )
