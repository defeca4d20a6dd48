/* What the scripts of the page share. All that comes from outside is put in as text, never as markup. */
(function () {
  'use strict';

  var root = document.getElementById('vmb');
  var BRIDGE = root.dataset.bridge;
  var MARKS = {
    ok: ['fa-check', 'green-text'], waits: ['fa-clock-o', ''],
    warning: ['fa-exclamation-triangle', 'orange-text'], failed: ['fa-times', 'red-text']
  };

  var PATIENCE = 45000; // ms; the bridge itself gives up before
  var zone;             // the server's time zone, if this browser knows it

  // -- asking ------------------------------------------------------------------------------------

  function ask(method, path, body, match, patience) {
    var fields = new URLSearchParams();
    fields.set('method', method);
    fields.set('path', path);
    if (body !== undefined) fields.set('body', JSON.stringify(body));
    if (match) fields.set('if_match', match);
    fields.set('csrf_token', typeof csrf_token === 'undefined' ? '' : csrf_token);
    var giveUp = new AbortController();
    var alarm = setTimeout(function () { giveUp.abort(); }, patience || PATIENCE);
    return fetch(BRIDGE, {method: 'POST', body: fields, credentials: 'same-origin', redirect: 'manual',
      signal: giveUp.signal}).then(function (response) {
      return response.text().then(function (text) { return answer(response, text); });
    }).catch(function (wrong) {
      if (wrong && wrong.code && wrong.detail) throw wrong;
      throw problem('page', 'The server cannot be reached.', 'This page tries again by itself.');
    }).finally(function () { clearTimeout(alarm); });
  }

  function answer(response, text) {
    var found = null;
    try { found = JSON.parse(text); } catch (error) { /* told below */ }
    if (found !== null && response.ok) return found;
    if (found !== null && found.detail) throw found;
    throw problem('page', 'The web server does not serve this page any more, or you are logged out.',
      'Load the page again.');
  }

  function problem(code, detail, hint) { return {code: code, detail: detail, hint: hint, errors: []}; }

  function words(wrong) { return [wrong.detail, wrong.hint].filter(Boolean).join(' '); }

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

  // Fills an element anew if it has to say something else than before: a reader's place is kept.
  function draw(element, said, fill) {
    var text = JSON.stringify(said);
    if (element.vmbSaid === text) return;
    element.vmbSaid = text;
    empty(element);
    fill(element);
  }

  function useZone(name) {
    try { zone = new Date().toLocaleString('en', {timeZone: name}) && name; } catch (error) { zone = undefined; }
    return zone !== undefined;
  }

  function day(at) { return at.toLocaleDateString('sv', {timeZone: zone}); } // 2026-11-28

  function today() { return day(new Date()); }

  function moment(text) {
    var at = new Date(text);
    var days = Math.round((Date.parse(today()) - Date.parse(day(at))) / 86400000);
    var time = at.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', timeZone: zone});
    if (days === 0) return 'today ' + time;
    if (days === 1) return 'yesterday ' + time;
    if (days === -1) return 'tomorrow ' + time;
    return at.toLocaleDateString([], {year: 'numeric', month: 'short', day: 'numeric', timeZone: zone}) + ' ' + time;
  }

  function checks(list, parts) {
    draw(list, parts, function () {
      parts.forEach(function (part) {
        var mark = MARKS[part.state] || MARKS.failed;
        var line = make('li');
        var text = make('span', '', part.text);
        line.appendChild(icon(mark[0], mark[1]));
        if (part.hint) text.appendChild(make('b', '', ' ' + part.hint));
        line.appendChild(text);
        list.appendChild(line);
      });
    });
  }

  function sentence(mark, colour, text) {
    draw(find('.vmb-sentence'), [mark, colour, text], function (line) {
      line.appendChild(icon(mark, colour));
      line.appendChild(document.createTextNode(text));
    });
  }

  window.VMBabysitter = {
    root: root, ask: ask, words: words, find: find, make: make, empty: empty, show: show, icon: icon,
    draw: draw, useZone: useZone, today: today, moment: moment, checks: checks, sentence: sentence
  };
})();
