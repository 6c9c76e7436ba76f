"use strict";
/* The human's verdict on what is selected, visibly apart from the machine's suspicion. */
spray.panel({
  name: "verdict",
  sending: false,
  waiting: null, // what was chosen before one had a name: {about, verdict}
  drafts: new Map(), // notes that were begun and belong to no verdict yet, by what they are about
  mount(section) {
    this.section = section;
    for (const part of ["on", "buttons", "note", "undo", "export", "import", "file", "status"]) this[part] = section.querySelector(`#verdict-${part}`);
    this.annotator = section.querySelector("#annotator");
    try {
      this.annotator.value = localStorage.getItem("spray:annotator") ?? "";
    } catch {
      /* nothing was kept */
    }
    this.annotator.addEventListener("change", () => {
      this.annotator.value = this.annotator.value.trim();
      if (spray.state.chunk) this.update(spray.state, new Set(["subject"])); // another person, another word
      try {
        localStorage.setItem("spray:annotator", this.annotator.value);
      } catch {
        /* kept for this visit only */
      }
      if (this.waiting && !this.choice.contains(this.pressed)) this.sign(); // what is chosen there goes before
    });
    this.annotator.addEventListener("keydown", (event) => {
      const chosen = event.key === "Enter" && this.signer() && this.waiting?.verdict;
      if (!chosen) return;
      event.preventDefault(); // or Enter would press what has the focus next
      this.annotator.blur(); // which tells that it has changed, and so signs
      this.choice.querySelector(`[data-value=${chosen}]`).focus();
    });
    const options = Object.entries(spray.verdicts.choices).map(([value, [symbol, word]]) => [value, `${symbol} ${word}`]);
    this.choice = spray.segments("Verdict", options, null, (verdict) => this.give(verdict), { deliberate: true });
    this.choice.classList.add("verdicts");
    this.choice.firstChild.tabIndex = 0;
    this.buttons.append(this.choice);
    this.note.addEventListener("input", () => this.drafts.set(this.about, this.note.value));
    // A note on one's own verdict is saved once one leaves it; on the way to the verdicts it waits for what is chosen there.
    document.addEventListener("pointerdown", (event) => (this.pressed = event.target), true);
    document.addEventListener("keydown", () => (this.pressed = null), true);
    for (const place of [this.note, this.choice]) {
      place.addEventListener("focusout", ({ relatedTarget }) => {
        const to = relatedTarget ?? this.pressed; // some browsers do not focus a button that is clicked
        if (to !== this.note && !this.choice.contains(to)) this.saveNote();
      });
    }
    this.undo.addEventListener("click", async () => {
      const { record, again } = spray.verdicts.undo();
      const problem = again ? await spray.verdicts.send(again) : null;
      this.say(problem ?? `Taken back: ${this.told(record)}.`, problem !== null);
    });
    this.export.addEventListener("click", () => spray.save("verdicts.json", spray.verdicts.text(), "application/json"));
    this.import.addEventListener("click", () => this.file.click());
    this.file.addEventListener("change", () => this.read());
  },
  /** What a verdict given now is about: [kind, key, member positions]. */
  target({ subject, sample, chunk } = spray.state) {
    if (sample !== null) return ["sample", chunk.ids[sample], [sample]];
    return subject ? [subject.kind, subject.key, chunk.members[subject.key]] : null;
  },
  /** What holds here, and the last word of each person. */
  record() {
    const { subject, sample, chunk } = spray.state;
    if (sample !== null) return spray.verdicts.ofSample(chunk.ids[sample]);
    return subject ? spray.verdicts.current(subject) : null;
  },
  said() {
    const { subject, sample, chunk } = spray.state;
    if (sample !== null) return spray.verdicts.saidOfSample(chunk.ids[sample]);
    return subject ? spray.verdicts.said(subject) : [];
  },
  /** The last word of the person whose name is in the field. */
  own() {
    const name = this.signer();
    return name ? (this.said().find((record) => record.annotator.trim() === name) ?? null) : null;
  },
  /** A verdict and what it is on, in words: undo takes back what was given elsewhere, too. */
  told({ subject, key, verdict }) {
    const [group, entry] = spray.groupOf(key) ?? [];
    const on = subject === "sample" ? `sample ${spray.isolated(key)}` : entry ? `${spray.subjectName(entry)}, ${group.name}` : key;
    return `${spray.verdicts.symbols[verdict][1]} on ${on}`;
  },
  signer() {
    return this.annotator.value.trim();
  },
  /** Give what waits for a name, now that there is one. */
  sign() {
    const { about, verdict } = this.waiting;
    if (!this.signer() || about !== this.about) return;
    this.give(verdict);
  },
  saveNote() {
    const own = this.target() && this.own();
    if (!own || !this.drafts.has(this.about)) return;
    if (own.note === this.note.value) this.drafts.delete(this.about);
    else this.give(own.verdict);
  },
  /** The note of a verdict given now: what was written, what one wrote before, or what an earlier analysis offers with
      this very verdict. */
  noted(verdict) {
    return this.drafts.get(this.about) ?? this.own()?.note ?? (this.offered?.verdict === verdict ? this.offered.note : "");
  },
  async give(verdict) {
    if (!this.signer()) {
      this.waiting = { about: this.about, verdict };
      this.pressed = null; // a browser that fills the name in presses no key
      this.annotator.focus();
      this.say(`Verdicts are signed: your name first, then Enter gives “${spray.verdicts.choices[verdict][1]}”.`, true);
      return;
    }
    this.waiting = null;
    const [kind, key, members] = this.target();
    const { ids } = spray.state.chunk;
    const note = this.noted(verdict);
    this.drafts.delete(this.about);
    this.sending = spray.verdicts.served; // what is on its way can be taken back only once it has arrived
    const record = spray.verdicts.give(kind, key, Array.from(members, (i) => ids[i]), { verdict, note, annotator: this.signer() });
    if (spray.verdicts.served) {
      this.say("Saving…");
      const problem = await spray.verdicts.send(record);
      this.sending = false;
      this.undo.disabled = !spray.verdicts.canUndo();
      this.say(problem ?? "Saved in the store.", problem !== null);
    } else if (spray.verdicts.isKept()) this.say("Kept in this browser. Export makes a file of it.");
    else this.say(`${spray.verdicts.isFull() ? "This browser has no room for more" : "This browser keeps nothing"}: export before you close the page.`);
  },
  async read() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    try {
      const fresh = spray.verdicts.take(await file.text());
      await spray.verdicts.seek(fresh);
      const refused = [];
      for (const record of fresh) if (await spray.verdicts.send(record)) refused.push(record);
      const told = fresh.length === 1 ? "1 verdict imported." : `${fresh.length} verdicts imported.`;
      this.say(refused.length ? `${told} ${refused.length} could not be saved in the store and stay in this browser.` : told, refused.length > 0);
    } catch (error) {
      this.say(error.message, true);
    }
  },
  say(text, bad = false) {
    this.status.textContent = text;
    this.status.classList.toggle("bad", bad);
  },
  /** The panel goes with the reader: beside the class, or beside the evidence of one finding. */
  settle(page) {
    const place = page === "cluster" ? document.getElementById("cluster-verdict") : document.querySelector("#page-class .slot.right");
    if (this.section.parentElement !== place) place.prepend(this.section);
  },
  update(state, changed) {
    if (changed.has("page")) this.settle(state.page);
    if (!state.chunk || !["subject", "sample", "verdicts", "group"].some((name) => changed.has(name))) return;
    const target = this.target(state);
    for (const button of this.choice.children) button.disabled = !target;
    this.note.disabled = !target;
    const about = target ? `${spray.report.analysis} ${target[0]} ${target[1]}` : "";
    const record = this.own() ?? this.record(); // one's own word, or what the others say
    spray.choose(this.choice, record?.verdict ?? "");
    if (!Object.hasOwn(spray.verdicts.choices, record?.verdict ?? "")) this.choice.firstChild.tabIndex = 0;
    if (this.waiting?.about !== about) this.waiting = null;
    this.about = about;
    // What is being written is neither overwritten by news nor lost on the way to another finding and back.
    this.note.value = this.drafts.get(about) ?? (record?.verdict === "conflict" ? "" : (record?.note ?? ""));
    this.undo.disabled = this.sending || !spray.verdicts.canUndo();
    const last = spray.verdicts.lastGiven();
    this.undo.title = last ? `Take back: ${this.told(last)}` : "";
    this.on.textContent = !target ? "" : state.sample !== null ? `on sample ${target[1]}` : `on ${spray.subjectName(state.subject)}, ${state.group.name}`;
    const flagged = spray.ranked().filter(([, entry]) => entry.flagged);
    const open = flagged.length ? flagged : spray.ranked();
    const seen = open.filter(([, entry]) => spray.verdicts.current(entry)).length;
    const progress = `${spray.count(seen)} of ${spray.count(open.length)} ${flagged.length ? "flagged " : ""}${open.length === 1 ? "finding" : "findings"} reviewed`;
    const earlier = record || state.sample !== null || !state.subject ? null : spray.verdicts.inherited(state.subject);
    this.offered = earlier?.record ?? null;
    if (earlier) {
      const { verdict, annotator, note } = earlier.record;
      if (!this.drafts.has(about) && verdict !== "conflict") this.note.value = note;
      const same = `Earlier analysis, ${spray.percent(earlier.overlap)} the same members`;
      this.say(
        verdict === "conflict"
          ? `${same}, people disagree: ${note}. What do you say?`
          : `${same}: ${spray.verdicts.symbols[verdict][1]} (${annotator || "unnamed"}). Please confirm.`,
      );
    } else if (!changed.has("verdicts")) {
      const own = this.own();
      const others = this.said().filter((entry) => entry !== own);
      const told = others.map((entry) => `${entry.annotator || "unnamed"}: ${spray.verdicts.symbols[entry.verdict][1]}`);
      const waiting = spray.verdicts.unsent().length;
      this.say([progress, ...told, ...(waiting ? [`${waiting} not saved in the store yet`] : [])].join(" · "));
    }
  },
});
