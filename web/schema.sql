-- The database of chats, version 1. Texts in `facts` and `files` are JSON; times are seconds since 1970.
CREATE TABLE chats (
  n INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,  -- the hash of an API key; '' where there is none
  title TEXT NOT NULL,
  pinned INTEGER NOT NULL,
  system TEXT NOT NULL,
  leaf TEXT,  -- the last message of the branch that is shown
  created REAL NOT NULL,
  changed REAL NOT NULL,  -- when something was last said
  deleted REAL  -- when; it can be restored for a while
);
CREATE INDEX chats_of ON chats (owner);
CREATE INDEX deleted_chats ON chats (deleted) WHERE deleted IS NOT NULL;

-- A tree: what has the same parent are branches. A parent has the smaller n.
CREATE TABLE messages (
  n INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
  parent TEXT,
  role TEXT NOT NULL,
  content TEXT NOT NULL,
  reasoning TEXT NOT NULL,
  state TEXT NOT NULL,
  facts TEXT NOT NULL,
  files TEXT NOT NULL,
  created REAL NOT NULL
);
CREATE INDEX messages_of ON messages (chat, n);
CREATE INDEX branches ON messages (parent);
CREATE INDEX running_messages ON messages (chat) WHERE state = 'running';

-- What is searched. A message that grows is indexed when it is done. Old words go before the change and new ones come after
-- it, for of two triggers at one moment either may be the first.
CREATE VIRTUAL TABLE title_words USING fts5 (
  title, content = chats, content_rowid = n, tokenize = 'unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE message_words USING fts5 (
  content, content = messages, content_rowid = n, tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
CREATE TRIGGER title_added AFTER INSERT ON chats BEGIN
  INSERT INTO title_words (rowid, title) VALUES (new.n, new.title);
END;
CREATE TRIGGER title_changed AFTER UPDATE OF title ON chats BEGIN
  INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.n, old.title);
  INSERT INTO title_words (rowid, title) VALUES (new.n, new.title);
END;
CREATE TRIGGER title_removed AFTER DELETE ON chats BEGIN
  INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.n, old.title);
END;
CREATE TRIGGER message_added AFTER INSERT ON messages WHEN new.state <> 'running' BEGIN
  INSERT INTO message_words (rowid, content) VALUES (new.n, new.content);
END;
CREATE TRIGGER message_taken_up BEFORE UPDATE OF content, state ON messages WHEN old.state <> 'running' BEGIN
  INSERT INTO message_words (message_words, rowid, content) VALUES ('delete', old.n, old.content);
END;
CREATE TRIGGER message_done AFTER UPDATE OF content, state ON messages WHEN new.state <> 'running' BEGIN
  INSERT INTO message_words (rowid, content) VALUES (new.n, new.content);
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages WHEN old.state <> 'running' BEGIN
  INSERT INTO message_words (message_words, rowid, content) VALUES ('delete', old.n, old.content);
END;
