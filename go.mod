module net-watcher

go 1.26
