"""Eigenvalues on a CUDA device: LOBPCG (Knyazev 2001) by torch, believed only where its residuals are small."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from spray.analysis.graph import Graph

WORTHWHILE = 50_000
"""Vertices of a component from which a device is asked: below, Lanczos is done before the data is there."""
_EXTRA = 8
"""Vectors beyond those asked for; the last ones of a block converge last."""
_ITERATIONS = 1000


def leading(
    adjacency: Graph,
    root: Float[np.ndarray, " n"],
    k: int,
    *,
    seed: int,
    tolerance: float,
    device: str,
    iterations: int = _ITERATIONS,
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "n k"]] | None:
    """The k largest eigenvalues of D^−½ A D^−½ below 1, falling, and their vectors; None if not found.

    Args:
        adjacency: D^−½ A D^−½ of one connected component.
        root: its eigenvector of eigenvalue 1, of length 1, which is left out.
        k: number of eigenvalues, less than a third of the vertices.
        seed: of the block it starts from.
        tolerance: each residual |Mv − θv|, taken here in float64, is at most so much of θ (0: 1e-12), or the answer
            is None.
        device: where torch multiplies, in float64.
        iterations: at most so many.
    """
    import torch

    n, least = adjacency.shape[0], max(tolerance, 1e-12)
    coo = adjacency.tocoo()
    # With the identity, so that the smallest of L_sym are largest in size, too.
    rows = np.concatenate([coo.row, np.arange(n)])
    columns = np.concatenate([coo.col, np.arange(n)])
    values = np.concatenate([coo.data, np.ones(n)])
    shifted = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows, columns])),
        torch.from_numpy(values),
        (n, n),
        check_invariants=False,
        device=device,
    ).coalesce()
    block = np.random.default_rng(seed).uniform(-1, 1, (n, min(k + 1 + _EXTRA, n // 3)))
    block[:, 0] = root
    found, vectors = torch.lobpcg(
        shifted, X=torch.from_numpy(block).to(device), niter=iterations, tol=least / 10, largest=True
    )
    theta: NDArray[np.float64] = found.cpu().numpy()[1 : k + 1] - 1
    chosen: NDArray[np.float64] = vectors.cpu().numpy()[:, 1 : k + 1]
    residual = np.linalg.norm(adjacency @ chosen - chosen * theta, axis=0)
    if not (residual <= least * (1 + theta)).all() or np.abs(root @ chosen).max() > least:
        return None
    return theta, chosen
