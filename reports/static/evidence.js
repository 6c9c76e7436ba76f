"use strict";
/* What was measured about a finding: effects of interventions beside their controls, parts of the score, whatever else
   is recorded, and pictures before and after. */

/** What was measured, in short: each intervention's effect beside its controls, then the parts of the score as bars. */
spray.evidence = (subject, group) => {
  if (!subject || subject.kind !== "finding") return [];
  const [removed, pasted] = spray.effects(subject, group);
  const parts = Object.entries(subject.parts ?? {}).filter(([, value]) => value === null || typeof value === "number");
  const list = parts.length ? spray.element("dl", { class: "parts", "aria-label": "Parts of the suspicion" }, parts.slice(0, 8).map(([name, value]) => spray.part(name, value))) : null;
  const key = removed || pasted ? spray.element("p", { class: "key-line" }, spray.element("i", { class: "tick" }), `ticks: the same done to control ${(removed ?? pasted).what === "these channels" ? "channels" : "regions"}`) : null;
  return [removed && spray.effect(removed), pasted && spray.effect(pasted), key, list];
};

/** The interventions of a finding: {title, sign, measure, mean, net, interval, controls, images, hosts, way}, null where not
    run. Controls are [name, value, beside]: what was done to other samples is compared in log-odds and may be no part
    of the net effect, which then is greater than the difference. ``of`` is the class that was looked at, where it is not
    that of the samples: relevance may explain another, and of all classes at once there is none. */
spray.effects = (subject, group) => {
  const { removal, transplant, flip_rate: flips, target } = subject.evidence ?? {};
  const of = Number.isInteger(target) && target >= 0 && target !== group.index ? spray.className(target) : null;
  const turned = Number.isFinite(flips) ? `: ${spray.percent(flips)} become “${of ?? group.name}”` : "";
  const read = (title, sign, entry) => {
    const mean = entry?.mean ?? entry?.effect;
    if (!Number.isFinite(mean)) return null;
    // Older stores do not tell which: there it is seen by the difference.
    const isBeside = (name, value) => (Array.isArray(entry.elsewhere) ? entry.measure !== "logit" && entry.elsewhere.includes(name) : Number.isFinite(entry.net) && entry.net > mean - value + 1e-6);
    const controls = Object.entries(entry.controls ?? { control: entry.control }).filter(([, value]) => Number.isFinite(value)).map(([name, value]) => [name, value, isBeside(name, value)]);
    const interval = entry.net_interval ?? entry.interval;
    const known = Array.isArray(interval) && interval.every(Number.isFinite);
    return { title, sign, measure: spray.measures[entry.measure] ?? spray.measures.probability, mean, net: entry.net ?? null, interval: known ? interval : null, controls, images: entry.images ?? entry.n, hosts: sign > 0 ? (subject.evidence.pasted_on ?? null) : null, way: entry.way, of };
  };
  const channels = "channels" in (subject.evidence ?? {});
  const [without, elsewhere] = channels ? ["channels suppressed", "injected elsewhere"] : ["region removed", "pasted elsewhere"];
  const found = [read(of === null ? without : `${without}, for “${of}”`, -1, removal), read(`${elsewhere}${turned}`, 1, transplant)];
  for (const entry of found) if (entry) entry.what = channels ? "these channels" : "this region";
  return found;
};

/** What effects are measured in: a sign for it, its name, and where on a bar from 0 to 1 a value lies. */
spray.measures = {
  probability: { sign: "P", name: "probability", place: (value) => value },
  logit: { sign: "log-odds", name: "log-odds", place: (value) => Math.tanh(value / 4) },
  flip: { sign: "share", name: "share of predictions", place: (value) => value },
};

/** A figure as an axis writes it, with the minus that type has. */
spray.axisNumber = (value, digits) => `${value < -1e-9 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;

/** A change of the class's probability: removing, sign −1, takes away what it had effect on. */
spray.signed = (value, sign) => `${Math.abs(value) < 0.005 ? "±" : sign * value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

/** On how many images an intervention was done. */
spray.effectSize = ({ images, hosts }) => (Number.isFinite(hosts) ? `of ${spray.count(images ?? 0)} on ${spray.count(hosts)} images` : `${spray.count(images ?? 0)} images`);

/** An intervention in words, figures and all. */
spray.effectWords = (entry) => {
  const { title, sign, measure, mean, net, interval, controls, way, of } = entry;
  const signed = (value) => spray.signed(value, sign);
  const told = controls.map(([name, value, beside]) => `${name} ${signed(value)}${beside ? " (other samples, compared in log-odds only)" : ""}`).join(", ");
  // Net effects keep the sign they have in the finding's summary and on the plot: above 0 speaks for the finding.
  const [inside, others] = [controls.filter(([, , beside]) => !beside), controls.filter(([, , beside]) => beside)];
  const against = inside.length || !others.length ? `effect net of the strongest control${others.length ? " on the same samples" : ""} ${spray.signed(net ?? mean, 1)}` : "no control on the same samples was run";
  const range = interval ? `; ${against}, 95 % between ${interval.map((end) => spray.signed(end, 1)).join(" and ")}` : "";
  return `${title}${way ? ` (${way})` : ""}: ${of ? `${measure.name} of “${of}”` : `class ${measure.name}`} ${signed(mean)}; controls: ${told || "none"}${range}; ${spray.effectSize(entry)}`;
};

/** An intervention as a bar from 0 to 1, its controls as ticks; figures in the tooltip. */
spray.effect = (entry) => {
  const place = (value) => `${100 * Math.max(0, Math.min(1, entry.measure.place(value)))}%`;
  const said = spray.effectWords(entry);
  return spray.element(
    "div",
    { class: "effect", title: said },
    spray.element("div", { class: "said" }, spray.element("span", {}, entry.title), spray.element("b", {}, `${entry.measure.sign} ${spray.signed(entry.mean, entry.sign)}`)),
    spray.element(
      "div",
      { class: "track", role: "img", "aria-label": said },
      spray.element("i", { class: "span", style: { width: place(entry.mean) } }),
      entry.controls.map(([, value]) => spray.element("i", { class: "control", style: { left: place(value) } })),
    ),
  );
};

/** Effects with their controls and intervals, those of one measure on one axis. */
spray.effectPlots = (subject, group) => {
  const entries = spray.effects(subject, group).filter(Boolean);
  const measures = [...new Set(entries.map((entry) => entry.measure))];
  return measures.map((measure) => spray.effectPlot(entries.filter((entry) => entry.measure === measure), measure));
};

/** Dots for means, a whisker for the net effect's 95 %. */
spray.effectPlot = (entries, measure) => {
  const narrow = matchMedia("screen and (max-width: 760px)").matches; // a phone's column: text keeps its size, the axis is shorter
  const headings = (entry) => {
    const { title, way } = entry;
    const how = [way, spray.effectSize(entry)].filter(Boolean).join(" · ");
    return narrow ? [{ heading: title }, { heading: how, faint: true }] : [{ heading: `${title} · ${how}` }];
  };
  const isNet = ({ controls }) => !controls.length || controls.some(([, , beside]) => !beside); // those on other samples are not in it
  const rows = entries.flatMap((entry) => [
    ...headings(entry),
    { name: entry.what ?? "this region", value: entry.mean, kind: "own" },
    ...entry.controls.map(([name, value, beside]) => ({ name: name === "control" ? name : `${beside ? "* other" : "control"}: ${name}`, value, kind: beside ? "control beside" : "control" })),
    ...(entry.interval ? [{ name: isNet(entry) ? "net of the strongest" : "its 95 %", value: entry.net ?? entry.mean, interval: entry.interval, kind: "net" }] : []),
  ]);
  const values = rows.filter((row) => row.kind).flatMap((row) => [row.value, ...(row.interval ?? [])]);
  const low = Math.min(-0.05, ...values);
  const high = Math.max(0.1, ...values);
  const [left, right, end, each] = narrow ? [132, 262, 312, 20] : [132, 404, 452, 20];
  const x = (value) => left + ((value - low) / (high - low)) * (right - left);
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((size) => (high - low) / size <= (narrow ? 3 : 7)) ?? 20;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k += 1) ticks.push(k * step);
  const bottom = rows.length * each + 4;
  const beside = entries.some((entry) => entry.controls.some(([, , apart]) => apart));
  const text = (content, at, y, anchor, kind = "") => spray.element("svg:text", { x: at, y, "text-anchor": anchor, class: kind }, content);
  const line = (x0, y0, x1, y1, kind) => spray.element("svg:line", { x1: x0, y1: y0, x2: x1, y2: y1, class: kind });
  const mark = (row, at) => {
    const y = at * each + 12;
    if (row.heading) return text(row.heading, 0, y + (row.faint ? 1 : 5), "start", row.faint ? "" : "heading");
    return [
      text(row.name, left - 10, y + 4, "end"),
      row.interval ? line(x(row.interval[0]), y, x(row.interval[1]), y, "whisker") : line(x(0), y, x(row.value), y, `stem ${row.kind}`),
      spray.element("svg:circle", { cx: x(row.value), cy: y, r: row.kind.startsWith("control") ? 3.5 : 4.5, class: row.kind }),
      text(spray.signed(row.value, 1), end, y + 4, "end", "number"),
    ];
  };
  return spray.element(
    "figure",
    { class: "effects" },
    spray.element(
      "svg:svg",
      { viewBox: `0 0 ${end + 4} ${bottom + (beside ? 62 : 48)}`, role: "img", "aria-label": entries.map(spray.effectWords).join(". ") },
      ticks.map((tick) => [line(x(tick), 4, x(tick), bottom, Math.abs(tick) < 1e-9 ? "zero" : "grid"), text(spray.axisNumber(tick, step < 0.1 ? 2 : step < 1 ? 1 : 0), x(tick), bottom + 14, "middle")]),
      text(`${measure.name} lost when removed, gained when pasted`, narrow ? end / 2 : (left + right) / 2, bottom + 30, "middle"),
      text("right of 0 speaks for the finding", narrow ? end / 2 : (left + right) / 2, bottom + 44, "middle"),
      beside ? text(`* on other samples: ${entries.some(isNet) ? "not in the net, " : ""}compared in log-odds`, narrow ? end / 2 : (left + right) / 2, bottom + 58, "middle") : "",
      rows.map(mark),
    ),
  );
};

/** One part of the score; bars end at 1, numbers do not. */
spray.part = (name, value) => {
  const measured = Number.isFinite(value);
  const width = `${100 * Math.max(0, Math.min(1, measured ? value : 0))}%`;
  const said = measured ? spray.decimal(value) : "–";
  return spray.element(
    "div",
    { title: measured ? `${spray.words(name)}: ${value}` : `${spray.words(name)}: not measured` },
    spray.element("dt", { title: spray.words(name) }, spray.words(name)),
    spray.element("dd", {}, spray.element("span", { class: "meter" }, spray.element("i", { style: { width } })), spray.element("span", { class: "number" }, said)),
  );
};

/** Names of evidence that is shown in a form of its own. */
spray.told = new Set(["removal", "transplant", "flip_rate", "score", "certain", "unmet", "q_value", "p_value", "confirmed", "associations"]);

/** What was asked of a finding before it is flagged, and what is missing; null where that is not recorded. */
spray.asked = ({ evidence = {} }) => {
  const { unmet, q_value: q, p_value: p } = evidence;
  if (!Array.isArray(unmet)) return null;
  const level = Number.isFinite(q) ? `q = ${spray.recorded(q)} over all candidates` : Number.isFinite(p) ? `p = ${spray.recorded(p)}, before correction for the other candidates` : "not tested for significance";
  const missing = unmet.map((name) => spray.element("li", {}, `✗ ${name}`));
  return spray.element("ul", { class: "asked" }, missing.length ? missing : spray.element("li", { class: "met" }, "✓ all that was asked of it beforehand"), spray.element("li", { class: "faint" }, level));
};

/** Whatever else is recorded as evidence, as it is: names and values, tables for lists of records. */
spray.recorded = (value) => {
  if (value === null || value === undefined) return "not measured";
  if (typeof value === "number") return Number.isInteger(value) ? spray.count(value) : Math.abs(value) >= 0.0001 || value === 0 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) {
    if (!value.length) return "none";
    if (value.every((entry) => entry && typeof entry === "object" && !Array.isArray(entry))) return spray.records(value);
    return spray.element("span", {}, value.flatMap((entry, at) => [at ? ", " : "", spray.recorded(entry)]));
  }
  if (typeof value !== "object") return String(value);
  return spray.element("dl", { class: "pairs small" }, Object.entries(value).map(([name, entry]) => [spray.element("dt", {}, spray.words(name)), spray.element("dd", {}, spray.recorded(entry))]));
};

/** A list of records as a table. */
spray.records = (list) => {
  const names = [...new Set(list.flatMap(Object.keys))];
  const number = (name) => list.some((entry) => typeof entry[name] === "number");
  const head = names.map((name) => spray.element("th", { scope: "col", class: number(name) ? "n" : null }, spray.words(name)));
  const lines = list.slice(0, 30).map((entry) => spray.element("tr", {}, names.map((name) => spray.element("td", { class: number(name) ? "n" : null }, spray.recorded(entry[name])))));
  return spray.element("div", { class: "scroll" }, spray.element("table", {}, spray.element("thead", {}, spray.element("tr", {}, head)), spray.element("tbody", {}, lines)));
};

/** Associations of membership with columns of metadata, as they were tested over all findings; null where none were. */
spray.tested = ({ evidence = {} }) => {
  const list = evidence.associations;
  if (!Array.isArray(list) || !list.length) return null;
  return [spray.element("p", { class: "faint" }, "Tested against every column of metadata (q: corrected for all columns and findings):"), spray.recorded(list)];
};

/** The part of the evidence that has no form of its own; null where there is none. */
spray.furtherEvidence = (subject) => {
  const parts = Object.entries(subject.parts ?? {}).filter(([, value]) => value !== null && typeof value !== "number");
  const rest = [...parts, ...Object.entries(subject.evidence ?? {}).filter(([name]) => !spray.told.has(name)).map(([name, value]) => [name, name === "target" && Number.isInteger(value) ? spray.className(value) : value])];
  return rest.length ? spray.recorded(Object.fromEntries(rest)) : null;
};

/** Pictures before and after the interventions, each pair one above the other; painted once they are there. */
spray.proof = (group, subject, { most = 12, size = 64, silent = false } = {}) => {
  if (!subject.pictured) {
    const tested = subject.kind === "finding" && spray.effects(subject, group).some(Boolean);
    return tested && !silent ? spray.element("p", { class: "faint" }, "No pictures before and after were stored with this finding.") : null;
  }
  const place = spray.element("div", { class: "proof", style: { "--side": `${size}px` } }, spray.element("p", { class: "faint", role: "status" }, "Pictures are on their way…"));
  const name = `proof-${spray.report.analysis}-${group.index}-${group.subjects.indexOf(subject)}`;
  const pairs = (title, before, after, region) => spray.pairs(title, before, after, { region, most, size });
  spray.proofOf(name).then(
    (sets) => spray.fill(place, pairs("Region removed", sets.members, sets.removed, subject.region), pairs("Region pasted on other classes", sets.hosts, sets.pasted, null)),
    (error) => spray.fill(place, spray.element("p", { class: "bad" }, `Pictures are missing: ${error.message}`)),
  );
  return place;
};

spray.pairs = (title, before, after, { region, most, size }) => {
  const count = Math.min(most, before?.count ?? 0, after?.count ?? 0);
  if (!count) return null;
  const painted = (set, at, words, outline) => {
    const canvas = spray.element("canvas", { role: "img", "aria-label": `${title}: image ${at + 1}, ${words}` });
    spray.tiles.picture(canvas, set.atlas, at, { size, region: outline });
    return canvas;
  };
  const pair = (_, at) => spray.element("div", { class: "pair-pictures" }, painted(before, at, "before", region), painted(after, at, "after", null));
  return spray.element(
    "figure",
    {},
    spray.element("figcaption", {}, spray.element("b", {}, title)),
    spray.element("div", { class: "pairs-row" }, spray.element("div", { class: "rows", "aria-hidden": "true" }, spray.element("span", {}, "before"), spray.element("span", {}, "after")), Array.from({ length: count }, pair)),
  );
};
