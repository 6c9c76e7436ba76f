"use strict";
/* Addresses: #overview, #summary, #about, #class=6, #class=6&subject=c6.f0, #class=6&sample=1234 (row in
   the store), #class=6&subject=c6.f0&page=cluster&with=c6.f1; &analysis=0123… where it is not the first. */
spray.router = (() => {
  const pages = ["overview", "summary", "about"];
  let latest = 0;

  const address = ({ page = "class", group, subject = null, sample = null, other = null, analysis = spray.report.analysis }) => {
    const of = analysis === spray.report.analyses[0].analysis ? [] : [`analysis=${analysis}`];
    if (pages.includes(page)) return `#${[page, ...of].join("&")}`;
    const parts = [`class=${group}`, ...of];
    if (subject) parts.push(`subject=${encodeURIComponent(subject)}`);
    if (sample !== null) parts.push(`sample=${sample}`);
    if (page === "cluster") parts.push("page=cluster");
    if (other) parts.push(`with=${encodeURIComponent(other)}`);
    return `#${parts.join("&")}`;
  };

  /** Go to a page, class, subject or sample; leaves an entry in the browser's history. */
  function go(target) {
    const next = address(target);
    if (next === location.hash) return follow();
    try {
      history.pushState(null, "", next); // unlike setting the hash, it does not make the browser lay out the page to scroll
    } catch {
      location.hash = next; // in a frame without an address of its own; hashchange follows it
      return Promise.resolve();
    }
    return follow();
  }

  /** The first subject worth a look: the class's top finding, else its largest cluster. */
  const opening = (group) => group.subjects[0] ?? null;

  /** The samples of a class, pictures too where they are few; null, with a word to the reader, where they cannot be had. */
  async function open(group) {
    try {
      const chunk = await spray.chunk(group.index);
      if (chunk.album.single) await spray.awaitPictures(chunk, [0]);
      const other = chunk.others.get(spray.state.relevance)?.album;
      if (other?.single) await other.settled([0]);
      spray.trouble(null);
      return chunk;
    } catch (error) {
      spray.trouble(`“${group.name}” cannot be shown: ${error.message}`);
      return null;
    }
  }

  /** What an address names that is not in this report, in words; null where all is there. */
  function missing(asked, group, chunk) {
    const { report } = spray;
    const wanted = (name, known, called = name) => (asked.has(name) && !known(asked.get(name)) ? `no ${called} “${asked.get(name).slice(0, 80)}”` : null);
    const subject = (key) => group.subjects.some((entry) => entry.key === key);
    const inside = [
      chunk && wanted("sample", (row) => row !== "" && chunk.rows.includes(Number(row))),
      group && wanted("subject", subject),
    ].filter(Boolean);
    const lacking = [
      wanted("analysis", (id) => report.analyses.some((entry) => entry.analysis === id)),
      wanted("class", (index) => index === "" || report.groups.some((entry) => String(entry.index) === index)),
      wanted("with", (key) => key === "" || spray.groupOf(key), "comparison"),
      ...(inside.length ? [`${inside.join(", ")} in “${group.name}”`] : []),
    ].filter(Boolean);
    return lacking.length ? `This report has ${lacking.join(", ")}. Something else is shown.` : null;
  }

  /** Show what the address says; what it does not say is the most suspicious. */
  async function follow() {
    const turn = (latest += 1);
    const asked = new URLSearchParams(location.hash.slice(1));
    const page = pages.find((name) => asked.has(name)) ?? (asked.get("page") === "cluster" ? "cluster" : "class");
    spray.analyse(asked.get("analysis") ?? spray.report.analyses[0].analysis);
    const { groups } = spray.report;
    const present = groups.find((entry) => entry === spray.state.group);
    const group = groups.find((entry) => String(entry.index) === asked.get("class")) ?? present ?? groups[0];
    if (pages.includes(page) || !group) {
      spray.trouble(missing(asked, null, null));
      spray.set({ page });
      return;
    }
    document.body.classList.add("loading");
    const chunk = await open(group);
    if (turn !== latest) return; // a later address has overtaken this one
    if (!chunk) {
      document.body.classList.remove("loading"); // what is shown stays, and the reader was told
      return;
    }
    spray.verdicts.match(group, chunk);
    const sample = asked.has("sample") ? chunk.rows.indexOf(Number(asked.get("sample"))) : -1;
    const named = group.subjects.find((entry) => entry.key === asked.get("subject"));
    const subject = named ?? (sample >= 0 && page !== "cluster" ? null : opening(group));
    const alone = sample >= 0 && !subject;
    const [otherGroup, other] = spray.groupOf(asked.get("with") ?? "") ?? [null, null];
    const otherChunk = otherGroup && page === "cluster" ? (otherGroup === group ? chunk : await open(otherGroup)) : null;
    if (turn !== latest) return;
    document.body.classList.remove("loading");
    if (otherChunk || !otherGroup || page !== "cluster") spray.trouble(missing(asked, group, chunk)); // else the reader was told
    spray.set({
      page: page === "cluster" && !subject ? "class" : page, // a class without findings and clusters has no such page
      group,
      chunk,
      subject,
      other: otherChunk ? other : null,
      otherGroup: otherChunk ? otherGroup : null,
      otherChunk,
      // Dots coloured by clusters follow the clustering that is looked at; other colours are the reader's choice.
      colour: subject && (spray.state.colour === "findings" || chunk.labels[spray.state.colour]) ? subject.clustering : spray.state.colour,
      clustering: subject ? subject.clustering : spray.state.clustering,
      picture: chunk.pictures[spray.state.picture] ? spray.state.picture : (Object.keys(chunk.pictures)[0] ?? null),
      selection: subject ? chunk.members[subject.key] : alone ? Uint32Array.of(sample) : new Uint32Array(0),
      origin: subject ? "subject" : alone ? "sample" : "none",
      sample: sample >= 0 ? sample : null,
    });
  }

  /** Let the address say which sample is looked at; leaves no entry of its own in the history. */
  function tellSample({ page, group, subject, sample, chunk, origin }) {
    if (page !== "class" || !chunk) return;
    const alone = origin === "sample" || (origin === "brush" && sample !== null); // not as one of the subject
    const next = address({ group: group.index, subject: alone ? null : subject?.key, sample: sample === null ? null : chunk.rows[sample] });
    if (next === location.hash) return;
    try {
      history.replaceState(null, "", next);
    } catch {
      /* a frame without an address of its own has none to tell */
    }
  }

  window.addEventListener("hashchange", follow);
  return { go, follow, address, tellSample };
})();

/** The class and the finding or cluster of a key; null where there is none. */
spray.groupOf = (key) => {
  for (const group of spray.report.groups) {
    const found = group.subjects.find((entry) => entry.key === key);
    if (found) return [group, found];
  }
  return null;
};
