/* The page of VM Babysitter. All that comes from outside is put in as text, never as markup. */
(function () {
  'use strict';

  var root = document.getElementById('vmb');
  var BRIDGE = root.dataset.bridge;
  var SOON = 2000;    // ms between two looks while something runs
  var LATER = 10000;  // and while nothing does
  var HEALTH = {good: 'green-text', repairable: 'orange-text', 'restore-only': 'orange-text', lost: 'red-text'};
  var MARKS = {
    ok: ['fa-check', 'green-text'], waits: ['fa-clock-o', ''],
    warning: ['fa-exclamation-triangle', 'orange-text'], failed: ['fa-times', 'red-text']
  };
  var STEPS = {
    'Looks at the disks': ['look', 'plan', 'measure', 'adopted'],
    'Prepares': ['mark', 'probe', 'save', 'begin', 'begun', 'freeze', 'frozen'],
    'Copies': ['copy'],
    'Completes the restore point': ['confirm', 'commit', 'committed', 'finish', 'ended', 'tidy', 'clean up', 'done'],
    'Undoes what was begun': ['roll back']
  };
  var watched = {};   // UUIDs of VMs whose backup was asked for here
  var rows = {};      // what is shown of each VM: {said, row}; a row stays as long as it says the same
  var loaded = null;  // the settings as they are on disk: {tag, settings}
  var standard = [];  // the schedules that hold while the settings name none
  var timer = null;
  var looking = false;
  var again = false;

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

  // -- the daemon does not run -----------------------------------------------------------------------

  function showDown(wrong) {
    sentence('fa-times-circle', 'red-text', wrong.detail || 'The daemon of VM Babysitter does not answer.');
    empty(find('.vmb-todo'));
    show('.vmb-up', false);
    if (wrong.code === 'page') {
      var hint = make('li', '', wrong.hint);
      find('.vmb-todo').appendChild(hint);
      show('.vmb-down', false);
      return Promise.resolve();
    }
    return ask('GET', '/self-check').then(function (found) {
      show('.vmb-down', true);
      checks(find('.vmb-down .vmb-checks'), found.checks);
      var printed = find('.vmb-words');
      printed.textContent = found.last_words;
      printed.hidden = !found.last_words;
      find('.vmb-start').disabled = found.running;
      if (found.running) {
        sentence('fa-clock-o', 'orange-text', 'The daemon of VM Babysitter runs and does not answer yet.');
      }
    }, function (other) { sentence('fa-times-circle', 'red-text', words(other)); });
  }

  find('.vmb-start').addEventListener('click', function () {
    var button = this;
    var said = find('.vmb-down .vmb-said');
    button.disabled = true;
    said.textContent = 'Starting…';
    ask('POST', '/daemon/start').then(function (found) {
      said.textContent = found.started ? '' : found.said;
    }, function (wrong) { said.textContent = words(wrong); }).then(function () {
      button.disabled = false;
      look();
    });
  });
  find('.vmb-again').addEventListener('click', function () { look(); });

  // -- the VMs ---------------------------------------------------------------------------------------

  function jobOf(vm, jobs) {
    return jobs.find(function (job) { return job.uuid ? job.uuid === vm.uuid : job.vm === vm.vm; });
  }

  function doing(job) {
    if (job.state === 'running') {
      return Object.keys(STEPS).find(function (words) { return STEPS[words].includes(job.step); }) || 'Begins';
    }
    if (job.waits_for) return 'Waits: ' + job.waits_for;
    return 'Waits for its turn';
  }

  function cell(row, name, label, text) {
    var found = make('td', name, text);
    if (label) found.dataset.label = label;
    row.appendChild(found);
    return found;
  }

  function act(button, doIt, row) {
    button.type = 'button';
    button.addEventListener('click', function () {
      button.disabled = true;
      doIt().then(look, function (wrong) {
        button.disabled = false;
        delete rows[row.dataset.uuid].said;
        var told = row.querySelector('.vmb-result') || row.lastChild.appendChild(make('p'));
        told.className = 'vmb-result red-text';
        told.textContent = words(wrong);
      });
    });
    return button;
  }

  function showProgress(place, job, row) {
    var part = job.total_bytes > 0 ? Math.min(100, Math.floor(100 * job.done_bytes / job.total_bytes)) : 0;
    var moves = job.state === 'running' && job.step === 'copy' && job.total_bytes > 0;
    place.appendChild(make('span', '', doing(job) + (moves ? ', ' + part + ' %' : '…')));
    if (moves) {
      var bar = make('div', 'vmb-bar');
      var filled = make('span');
      filled.style.width = part + '%';
      bar.setAttribute('role', 'progressbar');
      bar.setAttribute('aria-valuenow', part);
      bar.appendChild(filled);
      place.appendChild(bar);
    }
    place.appendChild(act(make('button', '', 'Stop'), function () {
      return ask('POST', '/jobs/' + job.id + '/cancel', {});
    }, row));
  }

  function showOutcome(place, job) {
    if (!job || !job.result) return;
    if (job.state === 'done' && !watched[job.uuid]) return;
    var good = job.state === 'done';
    var text = [job.summary, good ? '' : job.hint].filter(Boolean).join(' ');
    var colour = good ? 'green-text' : job.state === 'failed' ? 'red-text' : 'orange-text';
    place.appendChild(make('p', 'vmb-result ' + colour, moment(job.finished) + ': ' + text));
  }

  function vmRow(vm, live, ended) {
    var row = make('tr', vm.backed_up ? '' : 'vmb-out');
    row.dataset.uuid = vm.uuid;
    cell(row, 'vmb-name', '', vm.vm);
    cell(row, '', 'State', vm.state || 'removed from this server');
    var point = cell(row, 'vmb-point', 'Last good point', vm.newest_taken ? moment(vm.newest_taken) : 'none');
    if (vm.newest_taken && vm.current_as_of && vm.current_as_of !== vm.newest_taken) {
      point.appendChild(make('small', '', 'unchanged as of ' + moment(vm.current_as_of)));
    }
    var health = cell(row, 'vmb-words-of', 'Backups', '');
    health.appendChild(make('span', HEALTH[vm.health] || '', vm.words));
    if (!vm.backed_up) health.appendChild(make('small', '', vm.why_not));
    var place = cell(row, 'vmb-do', '', '');
    var job = jobOf(vm, live);
    if (job) {
      showProgress(place, job, row);
    } else if (vm.state) {
      place.appendChild(act(make('button', '', 'Back up now'), function () {
        watched[vm.uuid] = true;
        return ask('POST', '/jobs', {kind: 'backup', vm: vm.uuid});
      }, row));
      showOutcome(place, jobOf(vm, ended));
    }
    return row;
  }

  function rowOf(vm, live, ended) {
    var said = JSON.stringify([vm, jobOf(vm, live), jobOf(vm, ended), watched[vm.uuid], new Date().getDate()]);
    if (!rows[vm.uuid] || rows[vm.uuid].said !== said) rows[vm.uuid] = {said: said, row: vmRow(vm, live, ended)};
    return rows[vm.uuid].row;
  }

  function showStatus(status, jobs) {
    var live = status.running.concat(status.queued);
    var ended = jobs.filter(function (job) { return job.finished && job.kind === 'backup'; });
    sentence(status.fine ? 'fa-check-circle' : 'fa-exclamation-triangle',
      status.fine ? 'green-text' : 'orange-text', status.sentence);
    var todo = find('.vmb-todo');
    empty(todo);
    status.todo.forEach(function (each) {
      var said = each.what === status.sentence ? '' : (each.vm ? each.vm + ': ' : '') + each.what + ' ';
      var line = make('li', '', said);
      if (each.hint) line.appendChild(make('b', '', each.hint));
      todo.appendChild(line);
    });
    var body = find('.vmb-vms tbody');
    var shown = status.vms.map(function (vm) { return rowOf(vm, live, ended); });
    if (!shown.length) {
      var none = cell(make('tr'), '', '', 'No VM is known yet.');
      none.colSpan = 5;
      shown = [none.parentNode];
    }
    if (shown.length !== body.children.length || shown.some(function (row, at) { return row !== body.children[at]; })) {
      var was = body.contains(document.activeElement) ? document.activeElement.closest('tr').dataset.uuid : '';
      empty(body);
      shown.forEach(function (row) { body.appendChild(row); });
      var focused = was && rows[was] && rows[was].row.querySelector('button');
      if (focused) focused.focus();
    }
    return live.length > 0;
  }

  // -- settings --------------------------------------------------------------------------------------

  var store = find('#vmb-store');
  var often = find('#vmb-often');
  var weekday = find('#vmb-weekday');
  var time = find('#vmb-time');
  var cron = find('#vmb-cron');

  function backupSchedule(settings) {
    return (settings.schedules || standard).find(function (each) { return (each.kind || 'backup') === 'backup'; });
  }

  function two(number) { return ('0' + number).slice(-2); }

  function readWhen(schedule) {
    if (!schedule || schedule.enabled === false) return {often: 'never'};
    var found = /^\s*(\d{1,2})\s+(\d{1,2})\s+\*\s+\*\s+(\*|[0-7])\s*$/.exec(schedule.when);
    if (schedule.when === '@daily' || schedule.when === '@midnight') return {often: 'day', time: '00:00'};
    if (!found) return {often: 'cron', cron: schedule.when};
    var at = two(found[2]) + ':' + two(found[1]);
    if (found[3] === '*') return {often: 'day', time: at};
    return {often: 'week', time: at, weekday: String(found[3] % 7)};
  }

  function when() {
    var at = /^(\d\d):(\d\d)/.exec(time.value) || ['', '02', '00'];
    var line = Number(at[2]) + ' ' + Number(at[1]) + ' * * ';
    if (often.value === 'day') return line + '*';
    if (often.value === 'week') return line + weekday.value;
    return cron.value.trim();
  }

  function arrange() {
    weekday.hidden = often.value !== 'week';
    find('.vmb-at').hidden = often.value !== 'day' && often.value !== 'week';
    cron.hidden = often.value !== 'cron';
  }

  function isChanged() {
    return loaded !== null && JSON.stringify(edited()) !== JSON.stringify(loaded.settings);
  }

  function edited() {
    var settings = JSON.parse(JSON.stringify(loaded.settings));
    var path = store.value.trim();
    path = path.length > 1 ? path.replace(/\/+$/, '') : path;
    if (path !== ((settings.store || {}).path || '')) {
      settings.store = Object.assign({}, settings.store, {path: path});
    }
    var was = readWhen(backupSchedule(settings));
    var is = often.value === 'never' ? {often: 'never'} : readWhen({when: when()});
    if (often.value === 'cron' && was.often === 'cron') is = {often: 'cron', cron: when()};
    if (JSON.stringify(was) === JSON.stringify(is)) return settings;
    settings.schedules = settings.schedules || JSON.parse(JSON.stringify(standard));
    var schedule = backupSchedule(settings);
    if (!schedule) {
      schedule = {name: 'daily backup', kind: 'backup'};
      settings.schedules.push(schedule);
    }
    if (is.often === 'never') {
      schedule.enabled = false;
    } else {
      schedule.when = when();
      if (schedule.enabled === false) schedule.enabled = true;
    }
    return settings;
  }

  function fill() {
    var at = readWhen(backupSchedule(loaded.settings));
    store.value = (loaded.settings.store || {}).path || '';
    often.value = at.often;
    if (at.time) time.value = at.time;
    if (at.weekday) weekday.value = at.weekday;
    if (at.cron) cron.value = at.cron;
    root.classList.toggle('vmb-unset', !store.value);
    arrange();
    touched();
  }

  function touched() {
    var changed = isChanged();
    find('.vmb-apply').disabled = !changed;
    find('.vmb-undo').disabled = !changed;
    if (changed) find('.vmb-settings .vmb-said').textContent = '';
  }

  function showNext(schedules) {
    var mine = schedules.filter(function (each) { return each.kind === 'backup'; });
    var line = find('.vmb-next');
    if (!mine.length) { line.textContent = ''; return; }
    var text = mine[0].enabled ? mine[0].words : '';
    if (text) text = text.charAt(0).toUpperCase() + text.slice(1) + '.';
    if (text && mine[0].next) text += ' Next: ' + moment(mine[0].next) + '.';
    if (mine[0].vms.length) text += ' For: ' + mine[0].vms.join(', ') + '.';
    mine[0].warnings.forEach(function (each) { text += ' ' + each; });
    if (mine.length > 1) text += ' There are ' + (mine.length - 1) + ' more: "vm-babysitter schedules" on a terminal.';
    line.textContent = text.trim();
  }

  function complain(wrong) {
    root.querySelectorAll('.vmb-wrong').forEach(function (each) { each.textContent = ''; });
    if (!wrong) return;
    var errors = wrong.errors && wrong.errors.length ? wrong.errors : null;
    if (!errors) { find('.vmb-other').textContent = words(wrong); return; }
    errors.forEach(function (error) {
      var field = Array.from(root.querySelectorAll('[data-path]')).find(function (each) {
        return error.path.indexOf(each.dataset.path) === 0;
      });
      var place = field ? field.querySelector('.vmb-wrong') : find('.vmb-other');
      var value = error.value ? error.value + ' ' : '';
      var text = field ? value + error.rule : error.path + ': ' + value + error.rule;
      place.textContent += text + (/[.!]$/.test(text) ? ' ' : '. ') + (error.hint || '') + ' ';
    });
  }

  function apply() {
    var said = find('.vmb-settings .vmb-said');
    said.textContent = 'Saving…';
    find('.vmb-apply').disabled = true;
    ask('POST', '/settings', edited(), '"' + loaded.tag + '"').then(function (found) {
      loaded = found;
      complain(null);
      fill();
      said.textContent = 'Saved.';
      look();
    }, function (wrong) {
      said.textContent = '';
      complain(wrong);
      touched();
      if (wrong.code === 'settings-changed') loadSettings();
    });
  }

  function loadSettings(schedules) {
    return ask('GET', '/settings').then(function (found) {
      if (schedules && !found.settings.schedules) {
        standard = schedules.map(function (each) {
          return {name: each.name, when: each.when, kind: each.kind, vms: each.vms, enabled: each.enabled};
        });
      }
      var unchanged = loaded === null || !isChanged();
      if (loaded !== null && loaded.tag === found.tag) return;
      loaded = found;
      if (unchanged) fill();
      else touched();
    });
  }

  root.querySelectorAll('.vmb-settings input, .vmb-settings select').forEach(function (field) {
    ['input', 'change'].forEach(function (event) {
      field.addEventListener(event, function () { arrange(); if (loaded) touched(); });
    });
  });
  find('.vmb-settings form').addEventListener('keydown', function (event) {
    if (event.key === 'Enter' && event.target.tagName === 'INPUT' && isChanged()) apply();
  });
  find('.vmb-apply').addEventListener('click', apply);
  find('.vmb-undo').addEventListener('click', function () { complain(null); fill(); });

  // -- the system ------------------------------------------------------------------------------------

  function showSystem(system) {
    var wrong = system.parts.filter(function (part) { return part.state !== 'ok'; });
    var summary = find('.vmb-summary');
    var grave = wrong.some(function (part) { return part.state === 'failed' || part.state === 'warning'; });
    summary.className = 'vmb-summary ' + (wrong.length ? grave ? 'orange-text' : '' : 'green-text');
    summary.textContent = wrong.length
      ? wrong.length + ' of ' + system.parts.length + ' want a look or wait'
      : 'all ' + system.parts.length + ' parts are as they should be';
    checks(find('.vmb-system .vmb-checks'), system.parts);
    find('.vmb-version').textContent = 'Version ' + system.version + ', running since ' + moment(system.started)
      + '. Times of schedules are in ' + system.time_zone + '.';
  }

  // -- all of it -------------------------------------------------------------------------------------

  function look() {
    if (looking) { again = true; return; }
    looking = true;
    clearTimeout(timer);
    var busy = false;
    var down = false;
    Promise.all([ask('GET', '/status'), ask('GET', '/jobs?limit=100')]).then(function (found) {
      busy = showStatus(found[0], found[1]);
      return Promise.all([ask('GET', '/system'), ask('GET', '/schedules')]);
    }).then(function (found) {
      showSystem(found[0]);
      showNext(found[1]);
      return loadSettings(found[1]);
    }).then(function () {
      show('.vmb-down', false);
      show('.vmb-up', true);
    }).catch(function (wrong) {
      down = true; // each self-check starts a Python
      return showDown(wrong);
    }).then(function () {
      looking = false;
      if (again) { again = false; look(); return; }
      timer = setTimeout(look, document.hidden ? 6 * LATER : busy ? SOON : down ? 3 * LATER : LATER);
    });
  }

  document.addEventListener('visibilitychange', function () { if (!document.hidden) look(); });
  if (window.jQuery && jQuery.fn.fileTreeAttach) {
    jQuery(store).fileTreeAttach(null, null, function (folder) {
      store.value = folder;
      store.dispatchEvent(new Event('change'));
    });
  }
  look();
})();
