"use strict";
/* Verdicts: append-only records, kept in this browser, exported and imported as JSON. The last word of each person
   holds; where people differ, that is what is shown. All are signed: one without a name, of an older store, is nobody's;
   no other takes its place, and it takes that of none. */
spray.verdicts = (() => {
  const { report } = spray;
  const place = `spray:verdicts:${report.store}`;
  const choices = { clever_hans: ["⚠", "Clever Hans"], valid: ["✓", "valid"], unsure: ["?", "unsure"] };
  /** What may be told of a subject: what people choose, that they differ, and that somebody took his word back. */
  const symbols = { ...choices, conflict: ["≠", "disagreement"], withdrawn: ["↶", "withdrawn"] };
  const subjects = ["finding", "cluster", "sample"];
  const fields = ["subject", "analysis", "key", "verdict", "note", "annotator", "time", "digest"];
  const longest = { note: 10_000, annotator: 200, key: 10_000, analysis: 200 }; // as in the store
  const ahead = 24 * 3600 * 1000; // milliseconds that a clock may be ahead
  const steps = []; // what was given on this visit, and what its author had said before
  const refused = new Map(); // what the store did not take on this visit, and why
  const underway = new Set(); // what is being sent
  const isText = (value) => typeof value === "string";
  const boxes = new Map(); // members as they are kept, by their digest
  let kept = true; // whether this browser keeps anything
  let full = false; // whether it has no room for all of it
  let mine = stored() ?? [];

  function isRecord(record) {
    const texts = fields.every((name) => isText(record?.[name])) && Array.isArray(record.members) && record.members.every(isText);
    const about = record?.subject === "sample" ? record.members?.length === 1 && record.members[0] === record.key : record?.members?.length > 0;
    return texts && about && subjects.includes(record.subject) && record.verdict !== "conflict" && Object.hasOwn(symbols, record.verdict);
  }

  /** Sorted ids as they are kept: of each, how many characters at its ends are those of the one before, and the rest. Ids
      that are paths with numbers take a sixth of the room. */
  function packed(ids) {
    let last = "";
    return ids.map((id) => {
      const most = Math.min(id.length, last.length, 9999);
      let head = 0;
      while (head < most && id[head] === last[head]) head += 1;
      let tail = 0;
      while (tail < most - head && id.at(-1 - tail) === last.at(-1 - tail)) tail += 1;
      last = id;
      return `${String.fromCharCode(48 + head, 48 + tail)}${id.slice(head, id.length - tail)}`;
    });
  }

  function unpacked(texts) {
    let last = "";
    return texts.map((text) => {
      const [head, tail] = [text.charCodeAt(0) - 48, text.charCodeAt(1) - 48];
      last = `${last.slice(0, head)}${text.slice(2)}${last.slice(last.length - tail)}`;
      return last;
    });
  }

  /** Records as text: members once for all the words about them, so that a note that is written anew takes no room. */
  function closed(records) {
    for (const { digest: name, members } of records) if (!boxes.has(name)) boxes.set(name, { members, texts: packed(members) });
    const named = records.map(({ digest: name }) => [name, boxes.get(name).texts]);
    return JSON.stringify({ records: records.map(({ members: _, ...rest }) => rest), members: Object.fromEntries(named) });
  }

  /** The records of ``closed``, or of a list as it was kept before; throws where it is neither. */
  function opened(content) {
    if (Array.isArray(content)) return content;
    return content.records.map((record) => {
      const name = record.digest;
      if (!boxes.has(name)) boxes.set(name, { members: unpacked(content.members[name]), texts: content.members[name] });
      return { ...record, members: boxes.get(name).members };
    });
  }

  /** What this browser keeps, other tabs' records, too; null where it keeps nothing. What cannot be read is put aside. */
  function stored() {
    try {
      const text = localStorage.getItem(place) ?? "[]";
      let list = null;
      try {
        list = opened(JSON.parse(text));
      } catch {
        /* not what was written: put aside below */
      }
      const whole = Array.isArray(list) ? list.filter(isRecord) : [];
      if (whole.length !== list?.length) localStorage.setItem(`${place}:damaged`, text);
      return whole;
    } catch {
      kept = false;
      return null;
    }
  }

  function same(one, other) {
    return fields.every((name) => one[name] === other[name]);
  }
  const without = (records, known) => records.filter((record) => !known.some((entry) => same(entry, record)));
  /** Records of the store first, then those of this browser. */
  const all = () => [...report.verdicts, ...without(mine, report.verdicts)];

  /** What this browser keeps now, since another tab may have written, and what it had no room for. */
  function present() {
    const now = kept ? stored() : null;
    if (now === null) return mine;
    return full ? [...now, ...without(mine, now)] : now;
  }

  /** Change the records of this browser. */
  function change(how) {
    mine = how(present());
    try {
      if (kept) localStorage.setItem(place, closed(mine));
      full = false;
    } catch {
      full = true;
    }
    tell();
  }

  function tell() {
    if (spray.state.chunk) match(spray.state.group, spray.state.chunk);
    spray.set({ verdicts: spray.state.verdicts + 1 });
  }

  window.addEventListener("storage", (event) => {
    if (event.key !== place && event.key !== null) return;
    mine = present();
    tell();
  });

  /** Milliseconds of a time; one that tells nothing is earlier than all others. The reader's clock is not asked. */
  function moment({ time }) {
    const at = Date.parse(time);
    return Number.isNaN(at) ? -Infinity : at;
  }

  const latest = (records) => (records.length ? records.reduce((last, record) => (moment(record) >= moment(last) ? record : last)) : null);

  /** The last word of each person, in the order of their times; who took it back has said nothing. */
  function lastWords(records) {
    const people = new Map();
    for (const record of records) {
      const author = record.annotator.trim() || record;
      people.set(author, [...(people.get(author) ?? []), record]);
    }
    const words = [...people.values()].map(latest).filter((record) => record.verdict !== "withdrawn");
    return words.sort((one, other) => (moment(one) === moment(other) ? 0 : moment(one) - moment(other)));
  }

  /** What several people say together: the newest where they agree, "conflict" with all of it where they do not. */
  function together(words) {
    const last = words.at(-1) ?? null;
    if (words.every((record) => record.verdict === last.verdict)) return last;
    const note = words.map((record) => `${record.annotator || "unnamed"}: ${symbols[record.verdict][1]}${record.note ? ` (${record.note})` : ""}`).join("; ");
    return { ...last, verdict: "conflict", note, annotator: words.map((record) => record.annotator || "unnamed").join(", ") };
  }

  /** Why, in everybody's own words, a line each: with their names where several people spoke. */
  const reasons = (words) => words.filter(({ note }) => note).map(({ annotator, note }) => (words.length > 1 ? `${annotator || "unnamed"}: ${note}` : note));

  let ranked = { groups: null, findings: new Map() };

  /** Keys of the findings that have a digest, as ranked. */
  function findingsOf(members) {
    if (ranked.groups !== report.groups) {
      const findings = report.groups.flatMap((group) => group.subjects).filter(({ kind }) => kind === "finding");
      const place = new Map(report.ranking.map((key, i) => [key, i]));
      findings.sort((one, other) => place.get(one.key) - place.get(other.key));
      ranked = { groups: report.groups, findings: new Map(findings.map((entry) => [entry.digest, []])) };
      for (const entry of findings) ranked.findings.get(entry.digest).push(entry.key);
    }
    return ranked.findings.get(members) ?? [];
  }

  /** Whether a record is on a finding or cluster: on its very members, whatever they are called. Findings by other channels
      may have the same: then it is on the one it names, if that is of this analysis, else on the first. */
  function isOn(record, { kind, key, digest: members }) {
    if (record.subject !== kind || record.digest !== members) return false;
    const keys = kind === "finding" ? findingsOf(members) : [];
    return keys.length < 2 || key === (record.analysis === report.analysis && keys.includes(record.key) ? record.key : keys[0]);
  }

  /** The last word of each person on a finding or cluster. */
  const said = (subject) => lastWords(all().filter((record) => isOn(record, subject)));
  const saidOfSample = (id) => lastWords(all().filter((record) => record.subject === "sample" && record.key === id && record.members.length === 1 && record.members[0] === id));

  /** What holds for a finding or cluster; its verdict is "conflict" where people differ. */
  const current = (subject) => together(said(subject));

  const ofSample = (id) => together(saidOfSample(id));

  /** A record of an earlier analysis on nearly these members, as {record, overlap}: to be confirmed, not taken. */
  function inherited(subject) {
    const close = (record) => {
      const [key, overlap] = report.overlaps[about(record)] ?? [];
      return record.subject === subject.kind && key === subject.key && overlap >= report.inherited_from;
    };
    const record = together(lastWords(all().filter(close)));
    return record ? { record, overlap: report.overlaps[about(record)][1] } : null;
  }

  /** What a record is about: a finding and a cluster may have the same members. */
  const about = ({ subject, digest: members }) => `${subject}:${members}`;
  const subjectsHere = () => new Set(report.groups.flatMap((entry) => entry.subjects.map(({ kind, digest: members }) => `${kind}:${members}`)));

  /** Share of members that two sets of ids have in common: Jaccard. */
  function jaccard(one, other) {
    const inside = new Set(one);
    const common = other.reduce((count, id) => count + inside.has(id), 0);
    return common / (inside.size + other.length - common);
  }

  /** Compare records that fit no subject with the subjects of a class, now that its ids are known. */
  function match(group, chunk) {
    const known = subjectsHere();
    for (const record of all()) {
      if (record.subject === "sample" || known.has(about(record))) continue;
      for (const subject of group.subjects.filter((entry) => entry.kind === record.subject)) {
        const overlap = jaccard(record.members, Array.from(chunk.members[subject.key], (i) => chunk.ids[i]));
        if (overlap > (report.overlaps[about(record)]?.[1] ?? 0)) report.overlaps[about(record)] = [subject.key, overlap];
      }
    }
  }

  /** Look for what records of an earlier analysis mean in the classes that their keys name ("c6.f0"), opened or not. */
  async function seek(records) {
    const known = subjectsHere();
    const lost = records.filter((record) => record.subject !== "sample" && !known.has(about(record)));
    const classes = new Set(lost.map(({ key }) => /^c(\d+)\./.exec(key)?.[1]));
    for (const group of report.groups.filter(({ index }) => classes.has(String(index)))) match(group, await spray.chunk(group.index));
    if (lost.length) tell();
  }

  /** Records that hold for nothing in this analysis, with the nearest subject known: shown, never dropped. */
  function orphans() {
    const known = subjectsHere();
    return all().filter((record) => record.subject !== "sample" && !known.has(about(record)));
  }

  function give(subject, key, ids, { verdict, note, annotator }) {
    if (!annotator.trim()) throw new Error("A verdict is signed: it needs the annotator's name.");
    const members = [...ids].sort(byCodePoint);
    const record = { subject, analysis: report.analysis, key, verdict, note, annotator, time: new Date().toISOString(), members, digest: digest(members) };
    const judged = (entry) => (subject === "sample" ? entry.subject === subject && entry.key === key : isOn(entry, { kind: subject, key, digest: record.digest }));
    const own = all().filter((entry) => entry.annotator.trim() === annotator.trim() && judged(entry));
    steps.push({ record, previous: latest(own) });
    change((records) => [...records, record]);
    return record;
  }

  const served = report.carrier.kind === "served";
  let state = ""; // of the store's verdicts, as the server calls it
  let asked = 0; // requests made, and the newest of them whose answer is shown
  let shown = 0;

  /** The records of an answer, unless a later request was answered with more before it. */
  async function accept(answer, turn) {
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    if (answer.status === 204) return; // nothing new
    const records = [...report.verdicts.slice(0, Number(answer.headers.get("X-Spray-From"))), ...(await answer.json())];
    if (turn < shown && records.length < report.verdicts.length) return;
    shown = Math.max(turn, shown);
    state = answer.headers.get("X-Spray-State") ?? "";
    if (records.length === report.verdicts.length && records.every((record, i) => same(record, report.verdicts[i]))) return;
    report.verdicts = records;
    change((list) => without(list, records));
  }

  /** What the server has; the page asks now and then, since others judge too, and sends what could not be saved before;
      resolves to why that could not be saved now, or to null. */
  async function refresh() {
    const turn = (asked += 1);
    await accept(await fetch(`verdicts?known=${state}`), turn);
    let problem = null;
    for (const record of unsent()) if (!refused.has(named(record))) problem = (await send(record)) ?? problem;
    return problem;
  }

  const named = (record) => JSON.stringify(fields.map((name) => record[name]));

  /** What waits in this browser to be saved in the store. */
  const unsent = () => (served ? without(mine, report.verdicts).filter((record) => !underway.has(named(record))) : []);

  /** Put a record into the store; resolves to null, or to why it could not be: it stays in this browser then. */
  async function send(record) {
    if (!served) return null;
    const name = named(record);
    const turn = (asked += 1);
    underway.add(name);
    try {
      const headers = { "Content-Type": "application/json", "X-Spray-Token": report.carrier.token };
      const answer = await fetch(`verdicts?known=${state}`, { method: "POST", headers, body: JSON.stringify(record) });
      if (!answer.ok) {
        const told = answer.headers.get("Content-Type")?.startsWith("application/json") ? (await answer.json()).error : answer.statusText;
        refused.set(name, told);
        return `Not saved: ${told}`;
      }
      refused.delete(name);
      await accept(answer, turn);
      return null;
    } catch (error) {
      return `Not saved: the server does not answer (${error.message}). The verdict is kept in this browser and is sent once the server is back.`;
    } finally {
      underway.delete(name);
    }
  }

  /** Take back what was given last on this visit, as {record, again}. What a store has is never removed: there what its
      author had said before is given anew (``again``, to be sent), or that the word is withdrawn. */
  function undo() {
    const step = steps.pop();
    if (!step) return null;
    const { record, previous } = step;
    if (without([record], report.verdicts).length) {
      change((records) => without(records, [record]));
      return { record, again: null };
    }
    const { verdict, note } = previous ?? { verdict: "withdrawn", note: "" };
    const again = give(record.subject, record.key, record.members, { verdict, note, annotator: record.annotator });
    steps.pop();
    return { record, again };
  }

  function text() {
    const content = { format: "spray-verdicts", version: 1, store: report.store, analysis: report.analysis, title: report.title, verdicts: all() };
    return JSON.stringify(content, null, 1);
  }

  const iso = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/;

  /** Take the records of an exported file in, and give those that are new; throws an Error for people where it must not. */
  function take(content) {
    let file;
    try {
      file = JSON.parse(content);
    } catch {
      throw new Error("This is no JSON file. Choose a file that a report exported.");
    }
    if (file?.format !== "spray-verdicts") throw new Error("This file holds no verdicts. Choose a file that a report exported.");
    if (file.version !== 1) throw new Error(`This file has version ${Number(file.version)}; this report reads version 1. Write the report anew with a newer spray.`);
    if (file.store !== report.store) throw new Error("These verdicts belong to another store: nothing was imported. Open the report of that store to import them.");
    if (!Array.isArray(file.verdicts)) throw new Error("This file is damaged: its list of verdicts is missing.");
    for (const record of file.verdicts) {
      if (!isRecord(record)) throw new Error("This file is damaged: a verdict lacks a field, or has one that is none. Nothing was imported.");
      if (!iso.test(record.time) || !(Date.parse(record.time) <= Date.now() + ahead)) throw new Error(`This file is damaged: the time of a verdict on ${record.key.slice(0, 200)} is none, or has not come yet. Nothing was imported.`);
      for (const [name, most] of Object.entries(longest)) {
        if (Array.from(record[name]).length > most) throw new Error(`This file is damaged: the ${name} of a verdict on ${record.key.slice(0, 200)} is longer than ${spray.count(most)} characters. Nothing was imported.`);
      }
      if (digest([...record.members].sort(byCodePoint)) !== record.digest) {
        throw new Error(`The members of ${record.key} do not match their digest: the file was altered. Nothing was imported.`);
      }
    }
    const bare = (record) => Object.fromEntries([...fields, "members"].map((name) => [name, record[name]]));
    const known = served ? report.verdicts : all(); // what only waits here is sent with the rest
    const fresh = without(file.verdicts.map(bare), known);
    change((records) => [...records, ...without(fresh, records)]);
    return fresh;
  }

  /** The order of Python's sorted() on text: by code point, not by UTF-16 unit. */
  function byCodePoint(one, other) {
    const most = Math.min(one.length, other.length);
    let i = 0;
    while (i < most && one.charCodeAt(i) === other.charCodeAt(i)) i += 1;
    if (i === most) return one.length - other.length;
    // The second half of a pair tells nothing alone: then the pairs are compared.
    const start = i > 0 && (one.charCodeAt(i - 1) & 0xfc00) === 0xd800 ? i - 1 : i;
    return one.codePointAt(start) - other.codePointAt(start) || one.codePointAt(i) - other.codePointAt(i);
  }

  /** SHA-256 of the sorted ids, each as ASCII JSON on a line of its own, as the store computes it. */
  function digest(sorted) {
    const escape = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
    return spray.sha256(sorted.map((id) => `${JSON.stringify(id).replace(/[^ -~]/g, escape)}\n`).join(""));
  }

  return { symbols, choices, all, said, saidOfSample, lastWords, reasons, current, ofSample, inherited, match, seek, orphans, about, give, send, refresh, served, unsent, undo, text, take, digest, byCodePoint, isKept: () => kept && !full, isFull: () => full, canUndo: () => steps.length > 0, lastGiven: () => steps.at(-1)?.record ?? null };
})();

/** SHA-256 (FIPS 180-4) of a text in UTF-8, as hex. The browser's own is missing on plain http. */
spray.sha256 = (() => {
  const primes = [];
  for (let n = 2; primes.length < 64; n += 1) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (value) => Math.floor((value - Math.floor(value)) * 2 ** 32);
  const constants = primes.map((p) => fraction(Math.cbrt(p)));
  const turn = (value, by) => (value >>> by) | (value << (32 - by));

  return (text) => {
    const content = new TextEncoder().encode(text);
    const padded = new Uint8Array(((content.length + 72) >> 6) << 6);
    padded.set(content);
    padded[content.length] = 0x80;
    const view = new DataView(padded.buffer);
    view.setUint32(padded.length - 8, Math.floor(content.length / 2 ** 29));
    view.setUint32(padded.length - 4, (content.length << 3) >>> 0);
    const hash = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
    const w = new Int32Array(64);
    for (let block = 0; block < padded.length; block += 64) {
      for (let t = 0; t < 16; t += 1) w[t] = view.getInt32(block + 4 * t);
      for (let t = 16; t < 64; t += 1) {
        const s0 = turn(w[t - 15], 7) ^ turn(w[t - 15], 18) ^ (w[t - 15] >>> 3);
        const s1 = turn(w[t - 2], 17) ^ turn(w[t - 2], 19) ^ (w[t - 2] >>> 10);
        w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
      }
      let [a, b, c, d, e, f, g, h] = hash;
      for (let t = 0; t < 64; t += 1) {
        const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
        const one = (h + s1 + ((e & f) ^ (~e & g)) + constants[t] + w[t]) | 0;
        const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
        const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((value, i) => (hash[i] = (hash[i] + value) | 0));
    }
    return hash.map((value) => (value >>> 0).toString(16).padStart(8, "0")).join("");
  };
})();
