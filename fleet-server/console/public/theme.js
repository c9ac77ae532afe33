// Runs before the first paint, so that a chosen theme or language does not flash. A file of its own: the CSP allows no inline script.
(function () {
  try {
    var theme = localStorage.getItem('flotilla.theme');
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
    var locale = localStorage.getItem('flotilla.locale');
    if (locale) document.documentElement.lang = locale;
  } catch {
    // Storage is blocked: follow the system.
  }
})();
