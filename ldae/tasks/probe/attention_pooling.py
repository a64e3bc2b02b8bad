"""Attention pooling over the tokens of a scan (slices, patches) as a scikit-learn estimator (Ilse et al. 2018).

A scan's tokens h_1..h_K are weighed by a softmax over v . tanh(U h_k), and a linear model reads their weighted mean. Weights
begin equal, so that the model begins as the linear probe of the mean token; l2 regularisation holds it near there.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

__all__ = ["AttentionPoolingClassifier", "AttentionPoolingRegressor"]

Array = npt.NDArray[np.float64]


class _Pooling(nn.Module):
    """Attention over tokens, and a linear layer."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.read = nn.Linear(features, outputs)
        for parameter in (self.score.weight, self.read.weight, self.read.bias):
            nn.init.zeros_(parameter)

    def weights(self, tokens: Tensor) -> Tensor:
        """(N, K, F) to weights that sum to 1 over the tokens, (N, K)."""
        return self.score(self.project(tokens).tanh()).squeeze(-1).softmax(dim=1)

    def forward(self, tokens: Tensor, content: Tensor) -> Tensor:
        """Tokens to weigh and their content, (N, K, F) each, to (N, outputs)."""
        pooled = torch.einsum("nk,nkf->nf", self.weights(tokens), content)
        return self.read(pooled)


def _positive(spread: Tensor) -> Tensor:
    """A spread to divide by: 1 where nothing varies."""
    return torch.where(spread > 0, spread, 1.0)


class _AttentionPooling(BaseEstimator):  # type: ignore[misc]
    """Base of classifier and regressor.

    Args:
        tokens: K; the columns of X are K blocks of equal width, in the tokens' order.
        alpha: l2 regularisation of all weights but the intercept, relative to the mean loss.
        hidden: width of the attention.
        iterations: of L-BFGS at most.
        random_state: of the initial attention.
    """

    def __init__(
        self, tokens: int = 1, alpha: float = 0.01, hidden: int = 16, iterations: int = 60, random_state: int = 0
    ) -> None:
        self.tokens = tokens
        self.alpha = alpha
        self.hidden = hidden
        self.iterations = iterations
        self.random_state = random_state

    def _stacked(self, X: Array) -> Tensor:
        if X.shape[1] % self.tokens:
            msg = (
                f"{X.shape[1]} columns are no {self.tokens} tokens of equal width; give the number of tokens of a scan"
            )
            raise ValueError(msg)
        return torch.from_numpy(np.array(X, dtype=np.float64)).reshape(len(X), self.tokens, -1)

    def _scaled(self, stacked: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens to weigh and their content, (N, K, F) each.

        The first are standardised over scans and tokens together, so that the differences between places are kept; the second
        are less the mean over scans at their place, scaled to unit variance of the mean token.
        """
        return (stacked - self.mean_) / self.spread_, (stacked - self.place_) / self.unit_

    def _inputs(self, X: Array) -> tuple[Tensor, Tensor]:
        check_is_fitted(self, "pooling_")
        return self._scaled(self._stacked(validate_data(self, X, reset=False)))

    def _fit(self, X: Array, outputs: int, loss: Any) -> None:
        stacked = self._stacked(X)
        self.mean_, self.place_ = stacked.mean(dim=(0, 1)), stacked.mean(dim=0)
        self.spread_ = _positive(stacked.std(dim=(0, 1), correction=0))
        self.unit_ = _positive((stacked - self.place_).mean(dim=1).std(dim=0, correction=0))
        tokens, content = self._scaled(stacked)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            pooling = _Pooling(stacked.shape[2], self.hidden, outputs).double()
        held = [p for name, p in pooling.named_parameters() if name != "read.bias"]
        optimizer = torch.optim.LBFGS(pooling.parameters(), max_iter=self.iterations, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value: Tensor = loss(pooling(tokens, content)) + self.alpha * sum(p.square().sum() for p in held)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        self.pooling_ = pooling

    @torch.no_grad()
    def _read(self, X: Array) -> Array:
        inputs = self._inputs(X)
        return self.pooling_(*inputs).numpy()

    @torch.no_grad()
    def attention(self, X: Array) -> Array:
        """Weight of each token, (N, K); rows sum to 1."""
        tokens, _ = self._inputs(X)
        return self.pooling_.weights(tokens).numpy()


class AttentionPoolingClassifier(ClassifierMixin, _AttentionPooling):  # type: ignore[misc]
    """Multinomial logistic regression on attention-pooled tokens, classes balanced."""

    def fit(self, X: Array, y: Any) -> Self:
        """Fit on (N, K * F) and class labels (N,)."""
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        counts = np.bincount(labels)
        weight = torch.from_numpy(len(labels) / (len(counts) * counts))
        target = torch.from_numpy(labels)
        criterion = nn.CrossEntropyLoss(weight=weight)
        self._fit(X, len(self.classes_), lambda read: criterion(read, target))
        return self

    def predict_proba(self, X: Array) -> Array:
        """Probabilities, (N, classes)."""
        return np.asarray(softmax(self._read(X), axis=1))

    def predict(self, X: Array) -> npt.NDArray[Any]:
        """The likeliest class, (N,)."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])


class AttentionPoolingRegressor(RegressorMixin, _AttentionPooling):  # type: ignore[misc]
    """Ridge regression on attention-pooled tokens."""

    def fit(self, X: Array, y: Any) -> Self:
        """Fit on (N, K * F) and numbers (N,)."""
        X, y = validate_data(self, X, y, y_numeric=True)
        self.centre_, self.scale_ = float(np.mean(y)), float(np.std(y)) or 1.0
        target = torch.from_numpy((np.asarray(y, dtype=np.float64) - self.centre_) / self.scale_)
        self._fit(X, 1, lambda read: (read[:, 0] - target).square().mean())
        return self

    def predict(self, X: Array) -> Array:
        """Numbers, (N,)."""
        return self._read(X)[:, 0] * self.scale_ + self.centre_
