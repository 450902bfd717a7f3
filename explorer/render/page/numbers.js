// Numbers, shapes and names as people read them; the same spellings as explorer.render.words.

/** A number of the data: the texts "nan", "inf" and "-inf" stand for what JSON cannot say. */
function numberOf(value) {
  if (typeof value === "string") return value === "nan" ? NaN : value === "inf" ? Infinity : -Infinity;
  return value;
}

function special(number) {
  return Number.isNaN(number) ? "NaN" : number > 0 ? "Inf" : "−Inf";
}

/** Two significant digits with a true minus sign: 4.3e−6. */
function scientific(number) {
  if (!Number.isFinite(number)) return special(number);
  const [mantissa, exponent] = number.toExponential(1).split("e");
  const power = Number(exponent);
  return `${mantissa.replace("-", "−")}e${power < 0 ? "−" : "+"}${Math.abs(power)}`;
}

/** A forward value or a gradient: two decimals where that says enough. */
function short(value) {
  if (Array.isArray(value)) {
    const imaginary = short(numberOf(value[1]));
    return `${short(numberOf(value[0]))}${imaginary.startsWith("−") ? "" : "+"}${imaginary}i`;
  }
  const number = numberOf(value);
  if (!Number.isFinite(number)) return special(number);
  if (number === 0) return "0";
  const size = Math.abs(number);
  return size >= 0.01 && size < 100000 ? number.toFixed(2).replace("-", "−") : scientific(number);
}

/** Up to six significant digits, for the panel. */
function exact(value) {
  if (Array.isArray(value)) return `${exact(value[0])} + ${exact(value[1])}i`;
  const number = numberOf(value);
  if (!Number.isFinite(number)) return special(number);
  const size = Math.abs(number);
  if (number !== 0 && (size < 1e-4 || size >= 1e7)) {
    const [mantissa, exponent] = number.toExponential(5).split("e");
    const trimmed = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${trimmed}e${exponent.replace("+", "")}`.replaceAll("-", "−");
  }
  return String(Number(number.toPrecision(6))).replace("-", "−");
}

function count(number, thing) {
  const said = number.toLocaleString("en-US");
  if (!thing) return said;
  if (number === 1) return `${said} ${thing}`;
  return `${said} ${thing.endsWith("leaf") ? thing.slice(0, -1) + "ves" : thing + "s"}`;
}

function sizes(shape) {
  return shape.length ? shape.join(" × ") : "scalar";
}

function memory(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let size = bytes / 1024, unit = 0;
  while (size >= 1024 && unit < 3) { size /= 1024; unit += 1; }
  return `${size.toFixed(1)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(1)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
}
