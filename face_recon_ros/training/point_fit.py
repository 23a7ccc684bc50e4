"""`core.point_fit` in torch, differentiable in points, uncertainties and priors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from face_recon_ros.core.morphable_model import MorphableModel
from face_recon_ros.core.point_network import fit_stride
from face_recon_ros.training.geometry import rotation_from_vector


class State(NamedTuple):
    """B faces; see `core.point_fit.FitState`.

    Attributes:
        rotation: (B, 3, 3) camera_from_face.
        translation: (B, 3) metres.
        identity: (B, K_id).
        expression: (B, K_exp).
        reach: (B,) metres.
    """

    rotation: Tensor
    translation: Tensor
    identity: Tensor
    expression: Tensor
    reach: Tensor


class Fit(nn.Module):
    """The fit, and its priors as parameters."""

    mean: Tensor
    basis: Tensor

    def __init__(self, model: MorphableModel, vertices: NDArray[np.integer]) -> None:
        """Takes the named vertices' rows of the face model; priors are learned."""
        super().__init__()
        n, k = model.n_vertices, model.k_identity
        rows = [
            b.reshape(n, 3, -1)[vertices] for b in (model.identity_basis, model.expression_basis)
        ]
        self.k_identity = k
        self._used = slice(None, None, fit_stride(len(vertices)))
        self.register_buffer("mean", torch.from_numpy(model.mean_shape[vertices].copy()))
        self.register_buffer("basis", torch.from_numpy(np.concatenate(rows, 2).astype(np.float32)))
        self.log_pose = nn.Parameter(torch.log(torch.tensor([0.06, 0.06, 0.06, 0.01, 0.01, 0.04])))
        self.log_expression = nn.Parameter(torch.full((model.k_expression,), -1.6))
        self.log_identity = nn.Parameter(torch.zeros(k))
        self.log_independence = nn.Parameter(torch.tensor(-2.5))

    def forward(
        self,
        start: State,
        seen: Tensor,
        log_sigma: Tensor,
        steps: int = 2,
    ) -> State:
        """Gauss-Newton; see `PointFitter`. Gradients flow through the last step.

        Args:
            start: of B faces.
            seen: (B, P, 2) x / z, y / z.
            log_sigma: (B, P) of their standard deviations, metres.
            steps: of Gauss-Newton.
        """
        log_prior = torch.cat([self.log_pose, self.log_identity, self.log_expression])
        prior = torch.exp(-2 * log_prior)
        seen, log_sigma = seen[:, self._used], log_sigma[:, self._used]
        weight = self._used.step * torch.exp(self.log_independence - 2 * log_sigma)
        depth = start.translation[:, 2].clamp(min=1e-3)
        state = start
        offset = torch.zeros(len(seen), len(prior), device=seen.device)
        for step in range(steps):
            if step < steps - 1:
                with torch.no_grad():
                    state, offset = self._step(state, offset, seen, weight, prior, depth)
            else:
                state, offset = self._step(state, offset, seen, weight, prior, depth)
        return state

    def _step(
        self,
        state: State,
        offset: Tensor,
        seen: Tensor,
        weight: Tensor,
        prior: Tensor,
        at_depth: Tensor,
    ) -> tuple[State, Tensor]:
        rotation, translation, identity, expression, reach = state
        mean, basis = self.mean[self._used], self.basis[self._used]
        b, p, k = len(seen), len(mean), self.k_identity
        units = torch.stack([reach, reach, translation[:, 2]], 1)
        with torch.no_grad():
            coefficients = torch.cat([identity, expression], 1)
            shape = mean + (coefficients @ basis.flatten(0, 1).T).view(b, p, 3)
            turned = shape @ rotation.transpose(1, 2)
            x = turned + translation[:, None]
            z = x[..., 2:].clamp(min=1e-3)
            slope = x[..., :2] / z
            zero = torch.zeros_like(turned[..., 0])
            a, bb, c = turned.unbind(2)
            spin = torch.stack([zero, c, -bb, -c, zero, a, bb, -a, zero], 2).view(b, p, 3, 3)
            moved = torch.einsum("bij,pjm->bpim", rotation, basis)
            d = torch.cat([spin, torch.diag_embed(units)[:, None].expand(b, p, 3, 3), moved], 3)
            jacobian = (d[..., :2, :] - slope[..., None] * d[..., 2:, :]) * (
                at_depth[:, None, None] / z
            )[..., None]
            rows = jacobian.flatten(1, 2)
        residual = ((seen - slope) * at_depth[:, None, None]).flatten(1)
        weighted = rows * weight.repeat_interleave(2, 1)[..., None]
        information = weighted.transpose(1, 2) @ rows + torch.diag(prior)
        gradient = (weighted * residual[..., None]).sum(1) - prior * offset
        change = torch.linalg.solve(information, gradient)
        turn = rotation_from_vector(change[:, :3])
        new_expression = (expression + change[:, 6 + k :]).clamp(0, 1)
        new = State(
            turn @ rotation,
            translation + change[:, 3:6] * units,
            identity + change[:, 6 : 6 + k],
            new_expression,
            reach,
        )
        change = torch.cat([change[:, : 6 + k], new_expression - expression], 1)
        return new, offset + change

    def prior(self) -> dict[str, object]:
        """The learned priors, as `core.point_fit.FitPrior` has them."""
        pose = self.log_pose.exp().tolist()
        independence = self.log_independence.exp().item()
        return {
            "rotation": float(np.mean(pose[:3])),
            "translation": pose[3:],
            "identity": self.log_identity.exp().tolist(),
            "expression": self.log_expression.exp().tolist(),
            "independence": independence,
        }
