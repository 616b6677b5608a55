// What a page can do beyond plain links and forms: live updates, keys, running clocks. Nothing here decides anything.
"use strict";
document.documentElement.classList.add("js");

const byId = (id) => document.getElementById(id);
const typing = () => /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");

// Clocks: the server drew the texts, with its own clock; only what has passed since is added here.
const loadedAt = performance.now();
const drawnAt = Number(document.querySelector("main")?.dataset.now ?? 0);
const serverNow = () => drawnAt + (performance.now() - loadedAt) / 1000;

function span(seconds) {
  let left = Math.max(Math.trunc(seconds), 0);
  const units = [["day", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  for (let at = 0; at < units.length; at++) {
    const [unit, size] = units[at];
    if (left < size && size !== 1) continue;
    const count = Math.trunc(left / size);
    let text = `${count} ${unit}${unit === "day" && count !== 1 ? "s" : ""}`;
    if ((unit === "day" || unit === "h") && count < 10) {
      const [lower, lowerSize] = units[at + 1];
      const rest = Math.trunc((left % size) / lowerSize);
      if (rest) text += ` ${rest} ${lower}`;
    }
    return text;
  }
}

function tick() {
  const now = serverNow();
  for (const time of document.querySelectorAll("time[data-since]")) {
    time.textContent = `${span(now - Number(time.dataset.since))} ago`;
  }
  for (const time of document.querySelectorAll("time[data-until]")) {
    const left = Number(time.dataset.until) - now;
    time.textContent = left > 0 ? `${span(left)} left` : "time is over";
    const mark = time.closest(".left");
    if (mark) mark.className = `left ${left <= 0 ? "over" : left <= 120 ? "urgent" : left <= 600 ? "soon" : "calm"}`;
  }
}
setInterval(tick, 1000);

// Keys: to move and to read. There is none that approves or denies.
function move(step) {
  const links = [...document.querySelectorAll("#region a.open")];
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1);
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing() || byId("help")?.open) return;
  const inList = document.activeElement === document.body || document.activeElement?.matches("#region a.open, main");
  if (event.key === "j" || (event.key === "ArrowDown" && inList)) move(1);
  else if (event.key === "k" || (event.key === "ArrowUp" && inList)) move(-1);
  else if (event.key === "?") byId("help")?.showModal();
  else if (event.key === "u") byId("back")?.click();
  else if (event.key === "Escape" && /^#(approve|deny)$/.test(location.hash)) location.hash = "#decide";
  else return;
  if (event.key.startsWith("Arrow") || event.key === "?") event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && typing() && /^#(approve|deny)$/.test(location.hash)) location.hash = "#decide";
});
byId("help-open")?.addEventListener("click", () => byId("help").showModal());
window.addEventListener("hashchange", () => {
  if (/^#(approve|deny)$/.test(location.hash)) document.querySelector(`${location.hash} textarea`)?.focus();
});
// A decision is sent once, however often the button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

// Live updates: the stream says that something changed; the page is then fetched anew and its region replaced.
function busy() {
  return /^#(approve|deny)$/.test(location.hash) || typing() || document.querySelector("#region details.long[open]");
}

function fetchPage(done) {
  const request = new XMLHttpRequest();
  request.open("GET", location.pathname + location.search);
  request.responseType = "document"; // parsed inert: scripts in it never run
  request.onload = () => {
    if (request.status === 200 && request.response?.getElementById("region")) done(request.response);
    else if (request.status !== 200) sayLive(false);
  };
  request.onerror = () => sayLive(false);
  request.send();
}

function replaceRegion(fresh) {
  const focused = document.activeElement?.id;
  const before = document.querySelectorAll("#region .items .open").length;
  byId("region").replaceWith(document.importNode(fresh.getElementById("region"), true));
  const count = fresh.querySelector(".top nav a");
  if (count) document.querySelector(".top nav a")?.replaceWith(document.importNode(count, true));
  document.title = fresh.title;
  tick();
  if (focused) byId(focused)?.focus();
  const after = document.querySelectorAll("#region .items .open").length;
  byId("announce").textContent = after > before ? "A new action waits for a decision" : "The page was updated";
}

function changed() {
  if (!busy()) return fetchPage(replaceRegion);
  if (byId("stale")) return undefined;
  const note = document.createElement("p");
  note.id = "stale";
  note.className = "notice warn";
  note.setAttribute("role", "alert");
  const link = document.createElement("a");
  link.href = location.pathname + location.search;
  link.textContent = "Read it again.";
  note.append("This changed while you were here. ", link);
  return byId("region")?.prepend(note);
}

function sayLive(on) {
  const mark = byId("live");
  if (!mark) return;
  mark.className = `live js-only ${on ? "on" : "off"}`;
  mark.textContent = on ? "live" : "not live";
}

const live = byId("region")?.dataset.live;
if (live && window.EventSource) {
  const source = new EventSource("/events");
  let waiting;
  let broken = false;
  source.addEventListener("ready", () => {
    sayLive(true);
    if (broken) changed(); // something may have been missed meanwhile
    broken = false;
  });
  source.addEventListener("held", (event) => {
    const change = JSON.parse(event.data);
    if (live !== "inbox" && change.id && change.id !== live) return;
    clearTimeout(waiting);
    waiting = setTimeout(changed, 150); // an approval is three changes in a row
  });
  source.onerror = () => {
    broken = true;
    sayLive(false);
  };
}
