"use strict";
// Buttons that copy the text of a field. Without scripts they stay hidden; the field is there.
document.querySelectorAll("button[data-copy]").forEach(function (button) {
  var field = document.getElementById(button.dataset.copy);
  var status = document.getElementById("copied");
  button.hidden = false;
  button.addEventListener("click", function () {
    function done() { status.textContent = button.textContent.replace("Copy", "Copied"); }
    function byHand() {
      var panel = field.closest("details");
      if (panel) panel.open = true;
      field.focus();
      field.select();
      if (document.execCommand("copy")) done();
      else status.textContent = "Selected; copy it with the keyboard";
    }
    if (!navigator.clipboard) return byHand();
    navigator.clipboard.writeText(field.value).then(done, byHand);
  });
});
// Paper has the plots that are folded away on the screen.
window.addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (d) {
    if (d.querySelector("figure")) d.open = true;
  });
});
