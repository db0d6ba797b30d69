// Replaces an element's content by what its data-refresh address gives, every data-seconds.
// It ends when the new content holds an element with data-final.
"use strict";

function refresh(element) {
  const seconds = Number(element.dataset.seconds);
  const again = () => setTimeout(() => refresh(element), seconds * 1000);
  if (document.hidden || element.contains(document.activeElement)) {
    return again();
  }
  fetch(element.dataset.refresh)
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(answer.statusText))))
    .then((html) => {
      document.body.classList.remove("offline");
      if (html !== element.shown) {
        element.innerHTML = element.shown = html;
      }
      if (!element.querySelector("[data-final]")) {
        again();
      }
    })
    .catch(() => {
      document.body.classList.add("offline");
      again();
    });
}

for (const element of document.querySelectorAll("[data-refresh]")) {
  if (!element.querySelector("[data-final]")) {
    setTimeout(() => refresh(element), Number(element.dataset.seconds) * 1000);
  }
}
