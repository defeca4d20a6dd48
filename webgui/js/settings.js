/* The settings on the page: the backup folder, and when VMs are backed up. */
(function () {
  'use strict';

  var vmb = window.VMBabysitter;
  var root = vmb.root, ask = vmb.ask, words = vmb.words, find = vmb.find, show = vmb.show, moment = vmb.moment;
  var loaded = null;  // the settings as they are on disk: {tag, settings}
  var saving = false;
  var standard = [];  // the schedules that hold while the settings name none

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

  // What the fields stand for, in settings and as they are filled in.

  function pathOf(settings) { return (settings.store || {}).path || ''; }

  function whenOf(settings) { return JSON.stringify(readWhen(backupSchedule(settings))); }

  function path() {
    var text = store.value.trim();
    return text.length > 1 ? text.replace(/\/+$/, '') : text;
  }

  function whenNow(settings) {
    if (often.value === 'never') return JSON.stringify({often: 'never'});
    if (often.value === 'cron' && readWhen(backupSchedule(settings)).often === 'cron') {
      return JSON.stringify({often: 'cron', cron: when()});
    }
    return JSON.stringify(readWhen({when: when()}));
  }

  function isChanged() {
    return loaded !== null && JSON.stringify(edited()) !== JSON.stringify(loaded.settings);
  }

  function edited() {
    var settings = JSON.parse(JSON.stringify(loaded.settings));
    if (path() !== pathOf(settings)) settings.store = Object.assign({}, settings.store, {path: path()});
    if (whenNow(settings) === whenOf(settings)) return settings;
    settings.schedules = settings.schedules || JSON.parse(JSON.stringify(standard));
    var schedule = backupSchedule(settings);
    if (!schedule) {
      schedule = {name: 'daily backup', kind: 'backup'};
      settings.schedules.push(schedule);
    }
    if (often.value === 'never') {
      schedule.enabled = false;
    } else {
      schedule.when = when();
      if (schedule.enabled === false) schedule.enabled = true;
    }
    return settings;
  }

  function fillPath() {
    store.value = pathOf(loaded.settings);
    root.classList.toggle('vmb-unset', !store.value);
  }

  function fillWhen() {
    var at = readWhen(backupSchedule(loaded.settings));
    often.value = at.often;
    if (at.time) time.value = at.time;
    if (at.weekday) weekday.value = at.weekday;
    if (at.cron) cron.value = at.cron;
  }

  function fill() {
    fillPath();
    fillWhen();
    arrange();
    touched();
  }

  // Shows other settings than were loaded. What was filled in since stays; what was not must not come
  // back when that is saved.
  function replace(found) {
    var was = loaded && loaded.settings, is = found.settings;
    var ownPath = was !== null && path() !== pathOf(was);
    var ownWhen = was !== null && whenNow(was) !== whenOf(was);
    loaded = found;
    if (!ownPath) fillPath();
    else if (pathOf(is) !== pathOf(was) && pathOf(is) !== path()) warn('store.path');
    if (!ownWhen) fillWhen();
    else if (whenOf(is) !== whenOf(was) && whenOf(is) !== whenNow(is)) warn('schedules');
    arrange();
    touched();
  }

  function warn(field) {
    find('[data-path="' + field + '"] .vmb-wrong').textContent =
      'Somebody else has changed this meanwhile. Apply puts yours in its place, Undo shows theirs.';
  }

  function touched() {
    var changed = isChanged() && !saving;
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
    var sent = edited();
    saving = true;
    touched();
    said.textContent = 'Saving…';
    ask('POST', '/settings', sent, '"' + loaded.tag + '"').finally(function () { saving = false; }).then(function (found) {
      loaded.settings = sent;
      complain(null);
      replace(found);
      said.textContent = 'Saved.';
      vmb.lookSoon();
    }, function (wrong) {
      said.textContent = '';
      complain(wrong);
      touched();
      if (wrong.code !== 'settings-changed') return;
      find('.vmb-other').textContent = 'Other settings were changed meanwhile, so nothing was saved. Press Apply again.';
      load();
    });
  }

  function load(schedules) {
    return ask('GET', '/settings').then(function (found) {
      show('.vmb-settings form', true);
      find('.vmb-unread').textContent = '';
      if (schedules && !found.settings.schedules) {
        standard = schedules.map(function (each) {
          return {name: each.name, when: each.when, kind: each.kind, vms: each.vms, enabled: each.enabled};
        });
      }
      if (!saving && (loaded === null || loaded.tag !== found.tag)) replace(found);
    }, function (wrong) {
      if (wrong.code === 'page' || wrong.code === 'daemon-down' || wrong.code === 'daemon-slow') throw wrong;
      show('.vmb-settings form', false); // they cannot be read, all else goes on
      find('.vmb-unread').textContent = words(wrong);
    });
  }

  root.querySelectorAll('.vmb-settings input, .vmb-settings select').forEach(function (field) {
    ['input', 'change'].forEach(function (event) {
      field.addEventListener(event, function () { arrange(); if (loaded) touched(); });
    });
  });
  find('.vmb-settings form').addEventListener('keydown', function (event) {
    if (event.key === 'Enter' && event.target.tagName === 'INPUT' && isChanged() && !saving) apply();
  });
  find('.vmb-apply').addEventListener('click', apply);
  find('.vmb-undo').addEventListener('click', function () { complain(null); fill(); });

  if (window.jQuery && jQuery.fn.fileTreeAttach) {
    jQuery(store).fileTreeAttach(null, null, function (folder) {
      store.value = folder;
      store.dispatchEvent(new Event('change'));
    });
  }

  vmb.settings = {load: load, showNext: showNext};
})();
