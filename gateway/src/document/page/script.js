"use strict";
const root = document.documentElement;
const theme = document.getElementById("theme");
const filter = document.getElementById("filter");

function remembered() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}
function remember(value) {
  try { localStorage.setItem("theme", value); } catch { /* it holds for this page alone */ }
}
if (remembered()) root.dataset.theme = remembered();
theme.addEventListener("click", () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember(root.dataset.theme);
});

for (const code of document.querySelectorAll("pre code")) {
  if (location.origin.startsWith("http")) {
    code.textContent = code.textContent.replaceAll("http://127.0.0.1:8080", location.origin);
  }
  const copy = document.createElement("button");
  copy.type = "button";
  copy.textContent = "Copy";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  code.closest("figure").append(copy);
}

filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  for (const article of document.querySelectorAll("article")) {
    article.hidden = !article.textContent.toLowerCase().includes(wanted);
    const link = document.querySelector(`nav a[href="#${article.id}"]`);
    if (link) link.parentElement.hidden = article.hidden;
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target === filter;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && typing) {
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
  }
});
