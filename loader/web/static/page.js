"use strict";
// Fetches this page again every two seconds while it is visible, and updates the parts that changed.
const EVERY = 2000;
const PATIENCE = 8000;
const live = document.getElementById("live");
let timer = 0;
let answered = new Date();

// Updates a node in place to match another, so that focus, selection and open details stay.
function renew(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id) {
    old.replaceWith(fresh);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
  } else {
    const own = (name) => name === "open" && old.nodeName === "DETAILS";
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !own(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value && !own(name)) old.setAttribute(name, value);
    }
    const olds = [...old.childNodes];
    [...fresh.childNodes].forEach((child, at) => (at < olds.length ? renew(olds[at], child) : old.append(child)));
    olds.slice(fresh.childNodes.length).forEach((child) => child.remove());
  }
}

function tell(text, lost) {
  if (live.textContent !== text) live.textContent = text;
  document.body.classList.toggle("lost", lost);
}

async function look() {
  let what = "does not answer";
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error((what = `has answered ${answer.status}`));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other) renew(part, other);
    }
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

document.addEventListener("visibilitychange", () => begin(0));
// The outcome of an action is shown once, not again when the page is reloaded.
if (location.search) history.replaceState(null, "", location.pathname + location.hash);
begin(EVERY);
