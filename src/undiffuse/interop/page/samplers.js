// The mathematics of undiffuse.diffusion.samplers and .guidance. An image is a Float64Array; sigma is the noise level.

export const NO_LABEL = -1;

// The weights of the last slopes, newest first, for orders 1 to 4 and evenly spaced steps (Adams-Bashforth).
const WEIGHTS = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

// The start at level sigma: DDPM's x_T ~ N(0, I) on the axis x = x0 + sigma * eps.
export function startingNoise(normal, sigma) {
  return Float64Array.from(normal, (value) => Math.sqrt(1 + sigma ** 2) * value);
}

// Linear multistep with the weights of evenly spaced steps (PNDM, Liu et al. 2022): one denoise(x, sigma) a step.
export async function* ipndm(denoise, x, sigmas, order) {
  let slopes = [];
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const [sigma, s] = [sigmas[i], sigmas[i + 1]];
    const x0 = await denoise(x, sigma);
    slopes = [x.map((value, k) => (value - x0[k]) / sigma), ...slopes].slice(0, order);
    const weights = s > 0 ? WEIGHTS[slopes.length - 1] : WEIGHTS[0]; // The step down to 0 takes the predicted x0 itself.
    x = x.map((value, k) => value + (s - sigma) * weights.reduce((sum, weight, j) => sum + weight * slopes[j][k], 0));
    yield { sigma: s, x, x0 };
  }
}

// Multistep consistency sampling (Song et al. 2023, Algorithm 1): each step is an image, to which the next adds noise().
export async function* consistency(denoise, x, sigmas, noise) {
  for (let i = 0; i + 1 < sigmas.length; i++) {
    const s = sigmas[i + 1];
    const x0 = await denoise(x, sigmas[i]);
    const fresh = s > 0 ? noise() : [];
    x = s > 0 ? x0.map((value, k) => value + s * fresh[k]) : x0;
    yield { sigma: s, x, x0 };
  }
}

// Classifier-free guidance (Ho & Salimans 2022, Eq. 6, on x0) at noise levels in (low, high]. evaluate(x, sigma, labels)
// gives one x0 for each label.
export function guided(evaluate, label, scale, [low, high]) {
  return async (x, sigma) => {
    const acts = label !== NO_LABEL && scale !== 1 && low < sigma && sigma <= high;
    const [x0, unlabeled] = await evaluate(x, sigma, acts ? [label, NO_LABEL] : [label]);
    return acts ? x0.map((value, k) => unlabeled[k] + scale * (value - unlabeled[k])) : x0;
  };
}

// Each predicted clean image within the range of pixels, as DDPM does in sampling.
export function clipped(denoise) {
  return async (x, sigma) => (await denoise(x, sigma)).map((value) => Math.min(1, Math.max(-1, value)));
}
