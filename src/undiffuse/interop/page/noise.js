// Unit normal noise by seed for the seeds that noise.bin does not have. It is not torch's.

export function normal(seed, length) {
  const uniform = sfc32(seed);
  const numbers = new Float32Array(length);
  for (let i = 0; i < length; i += 2) { // Box and Muller 1958.
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    numbers[i] = radius * Math.cos(angle);
    if (i + 1 < length) numbers[i + 1] = radius * Math.sin(angle);
  }
  return numbers;
}

// Doty-Humphrey's small fast counter, as in PractRand: uniform numbers in [0, 1).
function sfc32(seed) {
  let [a, b, c, counter] = [0, seed, 0, 1];
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}
