"use strict";
// Fetches this page again every two seconds while it is visible, and updates the parts that changed.
const EVERY = 2000;
const PATIENCE = 8000;
const live = document.getElementById("live");
let timer = 0;
let answered = new Date();

// The text between two elements, if it is there.
function blank(node) {
  return node?.nodeType === Node.TEXT_NODE ? [node] : [];
}

// Updates a node in place to match another, so that focus, selection, open details and what is hidden stay.
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
  } else {
    const own = (name) => name === "hidden" || (name === "open" && old.nodeName === "DETAILS");
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !own(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value && !own(name)) old.setAttribute(name, value);
    }
    const count = fresh.childNodes.length;
    [...fresh.childNodes].forEach((child, at) => {
      if (child.id && old.childNodes[at]?.id !== child.id) {
        const moved = document.getElementById(child.id);
        if (moved?.parentNode === old) old.childNodes[at]?.before(moved, ...blank(moved.nextSibling));
      }
      if (at < old.childNodes.length) renew(old.childNodes[at], child);
      else old.append(child);
    });
    while (old.childNodes.length > count) old.lastChild.remove();
  }
}

// Shows only the jobs, and the parts of jobs, that are looked for: by words of their names, and by their state.
const sieve = document.getElementById("sift");
const find = document.getElementById("find");
const only = document.getElementById("only");
const unfolded = new Set(); // jobs whose parts were unfolded because some of them are looked for
let sought = "";

function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
  return shown;
}

function sift() {
  if (!sieve) return;
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const isNamed = (text) => words.every((word) => text.toLowerCase().includes(word));
  const isMeant = (element) => !only.value || element.dataset.states.split(" ").includes(only.value);
  const changed = sought !== `${only.value} ${words.join(" ")}`;
  sought = `${only.value} ${words.join(" ")}`;
  let found = 0;
  let all = 0;
  for (const job of document.querySelectorAll("#jobs > tbody")) {
    const name = job.id.slice("job-".length);
    const parts = job.querySelector("details.parts");
    let inside = 0;
    for (const group of job.querySelectorAll("details.parts > section")) {
      let shown = 0;
      for (const part of group.querySelectorAll("li")) {
        all += 1;
        shown += show(part, isMeant(group) && isNamed(`${name}/${part.firstChild.textContent}`));
      }
      show(group, shown > 0);
      inside += shown;
    }
    if (!parts) {
      all += 1;
      inside += isNamed(name) && isMeant(job);
    }
    found += inside;
    show(job, inside > 0);
    if (parts && changed) unfold(parts, name, inside > 0 && (only.value !== "" || !isNamed(name)));
  }
  const text = sought.trim() ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")}` : "";
  const told = document.getElementById("found");
  if (told.textContent !== text) told.textContent = text;
}

// Unfolds the parts of a job, and folds them again if nobody else has unfolded them.
function unfold(parts, name, wanted) {
  if (wanted && !parts.open) {
    parts.open = true;
    unfolded.add(name);
  } else if (!wanted && unfolded.delete(name)) parts.open = false;
}

function tell(text, lost) {
  if (live.textContent !== text) live.textContent = text;
  document.body.classList.toggle("lost", lost);
}

// The address of this page with all jobs: which of them are shown is chosen here.
function whole() {
  const asked = new URLSearchParams(location.search);
  for (const name of ["find", "only", "done"]) asked.delete(name);
  return location.pathname + (asked.size ? `?${asked}` : "");
}

// Keeps what is looked for in the address, so that it can be sent to somebody and outlives a reload.
function keep() {
  const asked = new URLSearchParams(location.search);
  asked.delete("done"); // the outcome of an action is shown once
  for (const field of [find, only].filter(Boolean)) {
    if (field.value) asked.set(field.name, field.value);
    else asked.delete(field.name);
  }
  const address = location.pathname + (asked.size ? `?${asked}` : "") + location.hash;
  if (address !== location.pathname + location.search + location.hash) history.replaceState(null, "", address);
}

async function look() {
  let what = "does not answer";
  try {
    const answer = await fetch(whole(), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((what = `has answered ${answer.status}`));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) renew(part, other);
    }
    sift();
    document.title = fresh.title;
    answered = new Date();
    tell("live", false);
  } catch {
    tell(`The daemon ${what} since ${answered.toLocaleTimeString()}`, true);
  }
  begin(EVERY);
}

function begin(wait) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(look, wait);
}

if (sieve) {
  sieve.addEventListener("input", () => {
    keep();
    sift();
  });
  sieve.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("jobs")?.addEventListener("click", (event) => {
    const link = event.target.closest("thead a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const asked = new URLSearchParams(location.search);
    asked.set("sort", new URL(link.href).searchParams.get("sort"));
    history.replaceState(null, "", `${location.pathname}?${asked}`);
    begin(0);
  });
  addEventListener("pageshow", sift); // a browser that goes back fills the fields again
}
document.addEventListener("visibilitychange", () => begin(0));
const isPart = find?.value || only?.value;
keep();
begin(isPart ? 0 : EVERY);
