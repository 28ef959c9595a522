// As closer.c, with Go's crypto/tls. Go has no way to close without its goodbye but to leave the connection alone.
package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strconv"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	role, port, how := os.Args[1], os.Args[2], os.Args[4]
	size, err := strconv.Atoi(os.Args[3])
	check(err)
	var raw net.Conn
	var conn *tls.Conn
	if role == "server" {
		pair, err := tls.LoadX509KeyPair(os.Args[5], os.Args[6])
		check(err)
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		check(err)
		fmt.Println("listening")
		raw, err = listener.Accept()
		check(err)
		conn = tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{pair}})
	} else {
		raw, err = net.Dial("tcp", "127.0.0.1:"+port)
		check(err)
		conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i % 251)
	}
	_, err = conn.Write(data)
	check(err)
	if how == "goodbye" {
		check(conn.Close())
	} else {
		check(raw.Close())
	}
}
