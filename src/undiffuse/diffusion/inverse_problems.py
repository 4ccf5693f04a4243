"""Images from measurements y = A x0 + noise of them, for a known linear A: a denoiser that is guided by y.

Guidance wraps the predictor, so that every sampler solves inverse problems as it is: by Tweedie's formula the clean
image expected behind x, given y too, is E[x0 | x, y] = D(x) + sigma^2 grad ln p(y | x). Pseudoinverse guidance (PiGDM,
Song et al. 2023) takes p(x0 | x) to be N(D(x), r^2 I), so that p(y | x) is N(A D(x), r^2 A A^T + noise^2 I).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from undiffuse.diffusion.denoiser import Predict, Prediction, spread
from undiffuse.utils.resampling import areas

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in a gray image (ITU-R BT.601), as Pillow converts."""


class Separable:
    """A linear operator A that acts on channels, rows and columns by a matrix each: A = M x L x R.

    A A^T is separable too, and its eigenvalues are the products of those of its three factors, so that inverting it is
    six small matrix products, whatever A is.
    """

    def __init__(
        self, channels: Float[Tensor, "d c"], rows: Float[Tensor, "k h"], columns: Float[Tensor, "l w"]
    ) -> None:
        self.factors = tuple(matrix.double() for matrix in (channels, rows, columns))
        pairs = [torch.linalg.eigh(matrix @ matrix.T) for matrix in self.factors]
        self.bases = tuple(vectors for _, vectors in pairs)
        self.eigenvalues = torch.einsum("d,k,l->dkl", *(values.clamp(min=0) for values, _ in pairs))

    def to(self, like: Tensor) -> "Separable":
        """The same operator where `like` is, in its type."""
        moved = Separable.__new__(Separable)
        moved.factors = tuple(matrix.to(like) for matrix in self.factors)
        moved.bases = tuple(matrix.to(like) for matrix in self.bases)
        moved.eigenvalues = self.eigenvalues.to(like)
        return moved

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        """A x."""
        return _applied(self.factors, x)

    def adjoint(self, y: Float[Tensor, "b d k l"]) -> Float[Tensor, "b c h w"]:
        """A^T y."""
        return _applied([matrix.T for matrix in self.factors], y)

    def solve(
        self, y: Float[Tensor, "b d k l"], variance: Float[Tensor, " b"], noise_variance: float
    ) -> Float[Tensor, "b d k l"]:
        """(variance A A^T + noise_variance I)^-1 y, the pseudoinverse where that is singular."""
        spectrum = spread(variance) * self.eigenvalues + noise_variance
        least = torch.finfo(y.dtype).eps * spectrum.amax(dim=(1, 2, 3), keepdim=True)
        inverse = torch.where(spectrum > least, 1 / spectrum, 0.0)
        return _applied(self.bases, inverse * _applied([basis.T for basis in self.bases], y))


def _applied(matrices: Sequence[Tensor], x: Tensor) -> Tensor:
    return torch.einsum("dc,kh,lw,bchw->bdkl", *matrices, x)


def grayscale(shape: tuple[int, int, int]) -> Separable:
    """Color images (channels, height, width) made gray: the luma of red, green and blue. Alpha is not seen.

    Raises:
        ValueError: images of this shape have no color.
    """
    channels, height, width = shape
    if channels < 3:
        raise ValueError("This model makes gray images, which have no color to find: choose a model of color images.")
    luma = torch.tensor([[*LUMA, *[0.0] * (channels - 3)]], dtype=torch.float64)
    return Separable(luma, _identity(height), _identity(width))


def gaussian_blur(shape: tuple[int, int, int], std: float) -> Separable:
    """Images (channels, height, width) blurred by a Gaussian of `std` pixels, mirrored at their edges.

    Mirrored, it is diagonal in the discrete cosine transform, as heat that cannot leave (Rissanen et al. 2023, Eq. 6).
    """
    channels, height, width = shape
    return Separable(_identity(channels), _blurring(height, std), _blurring(width, std))


def area_downsampling(shape: tuple[int, int, int], size: tuple[int, int]) -> Separable:
    """Images (channels, height, width) made smaller, to `size`: each pixel is the mean over its area."""
    channels, height, width = shape
    return Separable(_identity(channels), areas(size[0], height), areas(size[1], width))


def posterior(
    predict: Predict, operator: Separable, y: Float[Tensor, "_ d k l"], *, noise_std: float, data_std: float
) -> Predict:
    """The predictor of the clean image given the noisy one and a measurement: pseudoinverse guidance.

    It costs one function evaluation and its derivative. For independent Gaussian pixels of standard deviation
    `data_std` it is exact; r^2 is what is left of their variance at noise level sigma (Song et al. 2023, 3.2).

    Args:
        predict: What is wrapped, with guidance for a label where it is wanted.
        operator: A, where x is and in its type.
        y: The measurement, one for all images or one each.
        noise_std: Standard deviation of the measurement's noise.
        data_std: Standard deviation of the data's pixels.
    """

    def posterior_predict(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Prediction:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            x0, variance_fraction = predict(at, sigma, label)
            left = data_std**2 * sigma**2 / (data_std**2 + sigma**2)
            pull = operator.adjoint(operator.solve(y - operator(x0.detach()), left, noise_std**2))
            (gradient,) = torch.autograd.grad((x0 * pull).sum(), at)
        fraction = None if variance_fraction is None else variance_fraction.detach()
        return Prediction(x0.detach() + spread(sigma**2) * gradient, fraction)

    return posterior_predict


def corrected(
    x: Float[Tensor, "b c h w"], operator: Separable, y: Float[Tensor, "_ d k l"], *, noise_std: float
) -> Float[Tensor, "b c h w"]:
    """Finished images, moved toward those that give y.

    A learned denoiser misses y by more than the noise. From the excess the variance of an image's error is estimated,
    one number an image (empirical Bayes); the correction is the error then expected. Without an excess it is 0.
    """
    residual = y - operator(x)
    excess = (residual.square().mean(dim=(1, 2, 3)) - noise_std**2).clamp(min=0)
    variance = excess / operator.eigenvalues.mean()
    return x + spread(variance) * operator.adjoint(operator.solve(residual, variance, noise_std**2))


def _identity(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _blurring(n: int, std: float) -> Tensor:
    """Blur along one side, `(n, n)`: C^T diag(exp(-std^2 omega^2 / 2)) C with the DCT-II's matrix C."""
    omega = math.pi * torch.arange(n, dtype=torch.float64) / n
    cosines = torch.cos(omega[:, None] * (torch.arange(n, dtype=torch.float64) + 0.5)) * math.sqrt(2 / n)
    cosines[0] /= math.sqrt(2)
    return cosines.T @ (torch.exp(-((std * omega) ** 2) / 2)[:, None] * cosines)
