/* What the scripts of the page share. All that comes from outside is put in as text, never as markup. */
(function () {
  'use strict';

  var root = document.getElementById('vmb');
  var BRIDGE = root.dataset.bridge;
  var MARKS = {
    ok: ['fa-check', 'green-text'], waits: ['fa-clock-o', ''],
    warning: ['fa-exclamation-triangle', 'orange-text'], failed: ['fa-times', 'red-text']
  };

  // -- asking ------------------------------------------------------------------------------------

  function ask(method, path, body, match) {
    var fields = new URLSearchParams();
    fields.set('method', method);
    fields.set('path', path);
    if (body !== undefined) fields.set('body', JSON.stringify(body));
    if (match) fields.set('if_match', match);
    fields.set('csrf_token', typeof csrf_token === 'undefined' ? '' : csrf_token);
    return fetch(BRIDGE, {method: 'POST', body: fields, credentials: 'same-origin', redirect: 'manual'})
      .then(function (response) {
        return response.text().then(function (text) {
          var document_ = null;
          try { document_ = JSON.parse(text); } catch (error) { /* told below */ }
          if (document_ === null) {
            throw problem('page', 'The web server does not serve this page any more, or you are logged out.',
              'Load the page again.');
          }
          if (!response.ok) throw document_;
          return document_;
        });
      }, function () {
        throw problem('page', 'The server cannot be reached.', 'This page tries again by itself.');
      });
  }

  function problem(code, detail, hint) { return {code: code, detail: detail, hint: hint, errors: []}; }

  function words(wrong) {
    return wrong && wrong.detail ? [wrong.detail, wrong.hint].filter(Boolean).join(' ') : String(wrong);
  }

  // -- small things of pages -----------------------------------------------------------------------

  function find(selector) { return root.querySelector(selector); }

  function make(tag, name, text) {
    var element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  }

  function empty(element) { while (element.firstChild) element.removeChild(element.firstChild); }

  function show(selector, shown) {
    root.querySelectorAll(selector).forEach(function (each) { each.hidden = !shown; });
  }

  function icon(name, colour) {
    var found = make('i', 'fa fa-fw ' + name + (colour ? ' ' + colour : ''));
    found.setAttribute('aria-hidden', 'true');
    return found;
  }

  function moment(text) {
    var at = new Date(text);
    var now = new Date();
    var midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate());
    var days = Math.round((midnight - new Date(at.getFullYear(), at.getMonth(), at.getDate())) / 86400000);
    var time = at.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'});
    if (days === 0) return 'today ' + time;
    if (days === 1) return 'yesterday ' + time;
    if (days === -1) return 'tomorrow ' + time;
    return at.toLocaleDateString([], {year: 'numeric', month: 'short', day: 'numeric'}) + ' ' + time;
  }

  function checks(list, parts) {
    empty(list);
    parts.forEach(function (part) {
      var mark = MARKS[part.state] || MARKS.failed;
      var line = make('li');
      var text = make('span', '', part.text);
      line.appendChild(icon(mark[0], mark[1]));
      if (part.hint) text.appendChild(make('b', '', ' ' + part.hint));
      line.appendChild(text);
      list.appendChild(line);
    });
  }

  function sentence(mark, colour, text) {
    var line = find('.vmb-sentence');
    empty(line);
    line.appendChild(icon(mark, colour));
    line.appendChild(document.createTextNode(text));
  }

  window.VMBabysitter = {
    root: root, ask: ask, words: words, find: find, make: make, empty: empty, show: show, icon: icon,
    moment: moment, checks: checks, sentence: sentence
  };
})();
