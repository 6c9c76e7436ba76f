"use strict";
/* What the colours of the dots are and mean: findings, clusters, names by the palette, numbers by a scale. */

/** A colour of the theme or the palette, #rrggbb, as the number 0xrrggbbff. */
spray.rgba = (hue) => Number.parseInt(`${hue.slice(1)}ff`, 16);

/** What the dots' colours are and mean, for the chosen colouring: dot i has hues[codes[i]]; entries [[hue, text]…], and
    the scale where the colours are those of numbers. */
spray.colouring = ({ colour, chunk, group }) => {
  const { palette } = spray.report;
  const grey = spray.theme.colour("dot");
  const hues = [grey];
  const codes = new Uint16Array(chunk.n);
  if (colour === "findings" || chunk.labels[colour]) {
    const subjects = group.subjects.filter((entry) => entry.clustering === colour && entry.name !== "noise");
    // Findings may share members: these have the colour of a flagged one, else of the most suspicious.
    const painted = [...subjects].reverse().sort((one, other) => Boolean(one.flagged) - Boolean(other.flagged));
    for (const entry of painted) {
      hues.push(spray.subjectColour(group, entry));
      for (const i of chunk.members[entry.key]) codes[i] = hues.length - 1;
    }
    /** Of which others members of an entry have the colour, told with their number. */
    const covered = (entry) => {
      const own = painted.indexOf(entry) + 1;
      const hidden = Array.from(chunk.members[entry.key], (i) => codes[i]).filter((code) => code !== own);
      const names = [...new Set(hidden)].sort((a, b) => b - a).map((code) => spray.subjectName(painted[code - 1]));
      return hidden.length ? `, ${spray.count(hidden.length)} of them in ${names.join(", ")}, too` : "";
    };
    const entries = subjects.slice(0, 8).map((entry) => [spray.subjectColour(group, entry), `${spray.subjectName(entry)} (${spray.count(entry.n)}${covered(entry)})`]);
    if (codes.some((code) => hues[code] === grey)) entries.push([grey, colour === "findings" ? "in no finding" : subjects.length > 8 ? "noise and smaller clusters" : "noise"]);
    return { hues, codes, entries };
  }
  if (colour === "correct") {
    hues.push(palette[0], palette[1]);
    chunk.label.forEach((label, i) => (codes[i] = label < 0 ? 0 : label === chunk.prediction[i] ? 1 : 2));
    const unknown = codes.includes(0) ? [[grey, "label unknown"]] : [];
    return { hues, codes, entries: [[hues[1], "right"], [hues[2], "wrong"], ...unknown] };
  }
  const column = colour === "prediction" ? null : chunk.metadata[colour.slice(5)];
  const numbers = column && spray.isNumeric(column) ? spray.numbersOf(column) : null;
  const known = spray.byCount(column ?? Array.from(chunk.prediction, spray.className));
  if (numbers && known.filter((value) => Number.isFinite(spray.numberOf(value))).length > 7) return spray.numberColouring(numbers, colour.slice(5));
  // A handful of numbers are names, in their order.
  const named = numbers ? known.sort((a, b) => spray.byNumber([a, b])(0, 1)) : known;
  return spray.nameColouring(column ?? Array.from(chunk.prediction, spray.className), named);
};

/** Names in the colours of the palette, in the order given; those beyond it grey. */
spray.nameColouring = (values, known) => {
  const { palette } = spray.report;
  const grey = spray.theme.colour("dot");
  const named = known.slice(0, 7);
  const code = new Map(named.map((value, place) => [value, place + 1]));
  const counts = new Array(named.length + 1).fill(0);
  const codes = Uint16Array.from(values, (value) => code.get(value) ?? 0);
  for (const one of codes) counts[one] += 1;
  const entries = named.map((value, place) => [palette[place], `${spray.isolated(value) || "–"} (${spray.count(counts[place + 1])})`]);
  if (known.length > named.length) entries.push([grey, `${spray.count(known.length - named.length)} more (${spray.count(counts[0])})`]);
  return { hues: [grey, ...palette.slice(0, named.length)], codes, entries };
};

/** A column of metadata as numbers, NaN where a cell holds none; read once. */
spray.numbersOf = (column) => {
  if (!spray.numbersOf.known.has(column)) spray.numbersOf.known.set(column, Float64Array.from(column, spray.numberOf));
  return spray.numbersOf.known.get(column);
};
spray.numbersOf.known = new WeakMap();

/** Numbers on a scale whose lightness alone tells their order, so that every eye sees it; cells without one are grey. */
spray.numberColouring = (numbers, name) => {
  const grey = spray.theme.colour("dot");
  const shades = spray.ramp(spray.report.scales[spray.state.theme], 48);
  const { low, high, isCut } = spray.spanOf(numbers);
  const place = (value) => Math.max(0, Math.min(1, (value - low) / (high - low)));
  const codes = Uint16Array.from(numbers, (value) => (Number.isFinite(value) ? 1 + Math.round(place(value) * (shades.length - 1)) : 0));
  const missing = codes.reduce((count, code) => count + (code === 0), 0);
  const entries = missing ? [[grey, `no number (${spray.count(missing)})`]] : [];
  return { hues: [grey, ...shades], codes, entries, scale: { name, low, high, isCut, shades } };
};

/** Between which numbers a scale runs: all of them, or, where a few lie far off, the 2nd and the 98th percentile, so that
    those do not take all colours from the others. */
spray.spanOf = (numbers) => {
  const sorted = numbers.filter(Number.isFinite).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [first, last, low, high] = [0, 1, 0.02, 0.98].map(at);
  const isCut = high > low && last - first > 2 * (high - low);
  return isCut ? { low, high, isCut } : { low: first, high: last, isCut };
};

/** So many colours from one stop to the next, #rrggbb, mixed in sRGB. */
spray.ramp = (stops, steps) =>
  Array.from({ length: steps }, (_, i) => {
    const along = (i / (steps - 1)) * (stops.length - 1);
    const from = Math.min(stops.length - 2, Math.floor(along));
    const channel = (stop, c) => Number.parseInt(stop.slice(1 + 2 * c, 3 + 2 * c), 16);
    const mixed = [0, 1, 2].map((c) => Math.round(channel(stops[from], c) + (along - from) * (channel(stops[from + 1], c) - channel(stops[from], c))));
    return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  });

/** A number as people write it: five digits, thousands apart from ten thousand on, so that years stay years. */
spray.figure = (value) => {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e12)) return value.toExponential(2).replaceAll("-", "−");
  return value.toLocaleString("en-US", { maximumSignificantDigits: size >= 1e4 ? 12 : 5, useGrouping: size >= 1e4 }).replace("-", "−");
};

/** What stands at the ends of a scale. */
spray.scaleEnds = ({ low, high, isCut }) => [`${isCut ? "≤ " : ""}${spray.figure(low)}`, `${isCut ? "≥ " : ""}${spray.figure(high)}`];

/** The bar of a scale with the numbers at its ends. */
spray.scaleBar = (scale) => {
  const { name, isCut, shades } = scale;
  const [from, to] = spray.scaleEnds(scale);
  const bar = spray.element("i", { class: "ramp", role: "img", "aria-label": `colours of ${spray.isolated(name)} from ${from} to ${to}`, style: { background: `linear-gradient(to right, ${shades.join(", ")})` } });
  const hint = isCut ? "A few numbers lie far off: colours end at the 2nd and the 98th percentile." : null;
  return spray.element("span", { class: "scale-bar", title: hint }, spray.element("b", {}, spray.isolated(name)), from, bar, to);
};

/** Flagged findings alone are vermilion; the others take the palette in their order, grey beyond it. */
spray.subjectColour = (group, subject) => {
  if (subject.flagged) return spray.theme.colour("alarm-fill");
  const peers = group.subjects.filter((entry) => entry.clustering === subject.clustering && !entry.flagged && entry.name !== "noise");
  const place = peers.indexOf(subject);
  return place >= 0 && place < spray.report.palette.length ? spray.report.palette[place] : spray.theme.colour("dot");
};
